// The list of runs, newest first. The value is the id of the chosen run; the strip delivers the rows. Runs, and the
// trials of a chosen sweep, can be ticked; the overlay hears of it. Rows stay the same nodes while they live, so that a
// click or the focus on one is not lost to an update.
const SVG = 'http://www.w3.org/2000/svg', MOST_TICKED = 8, FILTER_FROM = 9;
const rows = new Map();
let ticked = [], open = false;

function sparkline() {
  const svg = document.createElementNS(SVG, 'svg');
  const attributes = {class: 'rl-spark', viewBox: '0 0 60 18', 'aria-hidden': 'true'};
  for (const [name, value] of Object.entries(attributes)) svg.setAttribute(name, value);
  svg.append(document.createElementNS(SVG, 'polyline'));
  return svg;
}

function outline(values) {
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  return values.map((v, i) => `${60 * i / (values.length - 1)},${17 - 16 * (v - low) / span}`).join(' ');
}

function age(seconds) {
  if (seconds < 60) return 'just now';
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

// Every combination of a sweep's values, as the server counts them: the last one changes fastest.
function trialsOf(sweep) {
  let trials = [[]];
  for (const [name, values] of Object.entries(sweep)) {
    const told = values.map(value => `${name.replaceAll('_', ' ')} ${value}`);
    trials = trials.flatMap(trial => told.map(each => [...trial, each]));
  }
  return Object.keys(sweep).length ? trials.map(trial => trial.join(', ')) : [];
}

function box(key, name) {
  const input = make('input', 'rl-tick'); input.type = 'checkbox'; input.dataset.key = key;
  input.setAttribute('aria-label', `Compare ${name}`); input.title = 'Compare';
  input.addEventListener('change', () => tick(key, input.checked));
  return input;
}

function newRow(run) {
  const item = make('li', 'rl-row'), button = make('button', 'rl-item');
  const top = make('span', 'rl-top'), bottom = make('span', 'rl-bottom');
  button.type = 'button'; button.dataset.run = run.id;
  const row = {
    item, button, name: make('span', 'rl-name'), best: make('span', 'rl-best'), state: make('span', 'rl-state'),
    spark: sparkline(), tick: box(run.id, run.name), trials: null,
  };
  top.append(row.name, row.best); bottom.append(make('span', 'rl-dot'), row.state, row.spark);
  button.append(top, bottom); item.append(row.tick, button);
  button.addEventListener('click', () => { show(false); trigger('select', {run: run.id}); });
  return row;
}

function addTrials(row, run) {
  const names = trialsOf(run.sweep), chosen = run.id === props.value;
  if (!names.length || Boolean(row.trials) === chosen) return;
  row.trials?.remove(); row.trials = null;
  if (!chosen) return;
  row.trials = make('ul', 'rl-trials'); row.trials.setAttribute('aria-label', `Trials of ${run.name}`);
  row.trials.append(...names.map((name, i) => {
    const item = make('li', ''), label = make('label', 'rl-trial');
    label.title = name;
    label.append(box(`${run.id}/${i}`, `trial ${i + 1}`), make('span', '', `${i + 1}  ${name}`));
    item.append(label);
    return item;
  }));
  row.item.append(row.trials);
}

function fill(row, run) {
  row.button.dataset.state = run.state;
  if (run.id === props.value) row.button.setAttribute('aria-current', 'true');
  else row.button.removeAttribute('aria-current');
  say(row.name, run.name); row.name.title = run.name;
  say(row.best, run.best); row.best.title = run.metric ? `Best ${run.metric}` : '';
  say(row.state, `${run.state} · ${age(Date.now() / 1000 - run.created)}`);
  const values = run.spark.length > 1 ? outline(run.spark) : '';
  if (row.spark.firstChild.getAttribute('points') !== values) row.spark.firstChild.setAttribute('points', values);
  addTrials(row, run);
}

function draw() {
  const all = window.ptuneRuns || [], wanted = q('.rl-filter').value.trim().toLowerCase();
  const runs = all.filter(run => !wanted || `${run.name} ${run.state}`.toLowerCase().includes(wanted));
  for (const run of all) { if (!rows.has(run.id)) rows.set(run.id, newRow(run)); fill(rows.get(run.id), run); }
  const alive = new Set(all.map(run => run.id));
  for (const id of rows.keys()) if (!alive.has(id)) rows.delete(id);
  if (window.ptuneRuns && ticked.some(key => !alive.has(key.split('/')[0]))) {
    ticked = ticked.filter(key => alive.has(key.split('/')[0]));
    tell();
  }
  const items = runs.map(run => rows.get(run.id).item), list = q('.rl-list'), focused = document.activeElement;
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) {
    list.replaceChildren(...items);
    if (list.contains(focused)) focused.focus();
  }
  q('.rl-filter').hidden = all.length < FILTER_FROM && !wanted;
  q('.rl-none').hidden = !wanted || runs.length > 0;
  q('.rl-empty').hidden = all.length > 0 || !window.ptuneRuns;
  showTicks();
}

function tick(key, on) {
  ticked = ticked.filter(other => other !== key);
  if (on) ticked.push(key);
  if (ticked.length > 1 && on) open = true;
  tell();
}

function show(on) { if (open !== on) { open = on; tell(); } }

function tell() {
  open = open && ticked.length > 1;
  showTicks();
  window.dispatchEvent(new CustomEvent('ptune:compare', {detail: {keys: [...ticked], open}}));
}

function showTicks() {
  for (const input of element.querySelectorAll('.rl-tick')) {
    input.checked = ticked.includes(input.dataset.key);
    input.disabled = !input.checked && ticked.length >= MOST_TICKED;
  }
  q('.rl-ticked').hidden = ticked.length === 0;
  const full = ticked.length >= MOST_TICKED ? `At most ${MOST_TICKED} at once.` : '';
  say(q('.rl-hint'), ticked.length === 1 ? 'Tick a second run to compare.' : full);
  q('.rl-compare').hidden = ticked.length < 2 || open;
  say(q('.rl-compare'), `Compare ${ticked.length} runs`);
}

q('.rl-filter').addEventListener('input', draw);
q('.rl-compare').addEventListener('click', () => show(true));
q('.rl-untick').addEventListener('click', () => { ticked = []; tell(); });
q('.rl-train').addEventListener('click', () => {
  const tabs = [...document.querySelectorAll('#tabs [role=tab]')];
  tabs.find(tab => tab.textContent.trim() === 'Train')?.click();
});
listen(window, 'ptune:close-overlay', () => show(false));
listen(window, 'ptune:runs', draw);
// The address leads back to the run that is shown, after a reload and in another browser. Here, because the list is
// always there, while the run's own parts are taken away with it.
let addressed = null;
function address() {
  const url = new URL(location), run = props.value || null;
  if (run) url.searchParams.set('run', run); else if (addressed) url.searchParams.delete('run');
  addressed = run;
  history.replaceState(null, '', url);
}

watch('value', address);
watch('value', draw);
draw();
