// What was checked before a run starts: what needs a look on top, each with a button that sets the control; what is
// fine folded below. Also tells the page when the number of runs before this one changes.
const ICONS = {good: '✓', note: '!', stop: '✗'}, SAID = {good: 'Fine', note: 'Please look', stop: 'Must be changed'};

function item(check) {
  const row = make('li', 'ck-item'); row.dataset.level = check.level; row.dataset.check = check.key;
  const icon = make('span', 'ck-icon', ICONS[check.level]); icon.setAttribute('role', 'img');
  icon.setAttribute('aria-label', SAID[check.level]);
  row.append(icon, make('span', 'ck-text', check.text));
  if (check.fix) {
    const button = make('button', 'ck-fix', `Fix: ${check.fix[0].toLowerCase()}${check.fix.slice(1)}`);
    button.type = 'button';
    button.addEventListener('click', () => trigger('fix', {check: check.key}));
    row.append(button);
  }
  return row;
}

function draw() {
  const checks = props.value || [], good = checks.filter(check => check.level === 'good');
  const [list, details] = [element.querySelector('.ck-list'), element.querySelector('.ck-good')];
  list.replaceChildren(...checks.filter(check => check.level !== 'good').map(item));
  details.hidden = !good.length;
  details.querySelector('summary').textContent = `✓ ${good.length} ${good.length === 1 ? 'check' : 'checks'} passed`;
  details.querySelector('ul').replaceChildren(...good.map(item));
}

let before = null;
function count() {
  const active = (window.ptuneRuns || []).filter(run => run.state === 'running' || run.state === 'queued').length;
  if (before !== null && active !== before) trigger('queue');
  before = active;
}

watch('value', draw);
listen(window, 'ptune:runs', count);
draw();
