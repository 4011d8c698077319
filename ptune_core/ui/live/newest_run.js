// The run that was started last, on the card that starts runs; the strip delivers it.

function draw() {
  const run = window.ptuneNewest;
  q('.nr').hidden = !run;
  if (!run) return;
  q('.nr').dataset.state = run.state;
  q('.nr-name').textContent = run.name; q('.nr-line').textContent = run.line;
  q('.nr-warning').textContent = run.warning; q('.nr-warning').hidden = !run.warning;
}

q('.nr-open').addEventListener('click', () => window.ptuneNewest && trigger('open', {run: window.ptuneNewest.id}));
listen(window, 'ptune:runs', draw);
draw();
