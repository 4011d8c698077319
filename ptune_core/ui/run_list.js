// The list of runs, newest first. The value is the id of the chosen run; the strip delivers the rows.
const SVG = 'http://www.w3.org/2000/svg';
const list = () => element.querySelector('.rl-list');

function make(tag, name, text) {
  const node = document.createElement(tag); node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function sparkline(values) {
  const svg = document.createElementNS(SVG, 'svg'), path = document.createElementNS(SVG, 'polyline');
  svg.setAttribute('class', 'rl-spark'); svg.setAttribute('viewBox', '0 0 60 18'); svg.setAttribute('aria-hidden', 'true');
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  path.setAttribute('points', values.map((v, i) => `${60 * i / (values.length - 1)},${17 - 16 * (v - low) / span}`).join(' '));
  svg.append(path);
  return svg;
}

function age(seconds) {
  if (seconds < 60) return 'just now';
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function row(run) {
  const item = make('button', 'rl-item'); item.type = 'button'; item.dataset.run = run.id; item.dataset.state = run.state;
  item.setAttribute('role', 'option'); item.setAttribute('aria-selected', run.id === props.value);
  const top = make('span', 'rl-top'); top.append(make('span', 'rl-dot'), make('span', 'rl-name', run.name));
  if (run.best) top.append(make('span', 'rl-best', run.best));
  const bottom = make('span', 'rl-bottom'); bottom.append(make('span', 'rl-state', `${run.state} · ${age(Date.now() / 1000 - run.created)}`));
  if (run.spark.length > 1) bottom.append(sparkline(run.spark));
  item.append(top, bottom);
  item.addEventListener('click', () => trigger('select', {run: run.id}));
  return item;
}

function draw() {
  const runs = window.ptuneRuns || [], focused = document.activeElement?.dataset?.run;
  element.querySelector('.rl-empty').hidden = runs.length > 0 || !window.ptuneRuns;
  list().replaceChildren(...runs.map(row));
  if (focused) list().querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
}

window.addEventListener('ptune:runs', draw);
watch('value', draw);
draw();
