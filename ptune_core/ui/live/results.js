// What a run has come to, below its plots: one tab at a time, asked for when it is opened. The value is the run's id.
// Nothing is written but text, so nothing that stands in somebody's data can become markup.
const PARTS = [
  ['sweep', 'Sweep'],
  ['samples', 'Samples'],
  ['confusion', 'Confusion'],
  ['calibration', 'Calibration'],
  ['baselines', 'Baselines'],
  ['cost', 'Cost'],
  ['settings', 'Settings'],
  ['log', 'Log'],
];
const ORDERS = [
  ['wrong', 'Most wrong first'],
  ['unsure', 'Least sure first'],
  ['data', 'As in the data'],
];
const tabs = element.querySelector('.rs-tabs'),
  panel = element.querySelector('.rs-panel');
const id = part => `${element.id || 'results'}-${part}`;
panel.id = id('panel');
let run = null,
  part = 'samples',
  generation = 0,
  timer = null,
  copyOf = null;
let chosen = {gold: '', predicted: '', order: 'wrong'};

function button(text, action, name = 'rs-button') {
  const node = make('button', name, text);
  node.type = 'button';
  node.addEventListener('click', () => action(node));
  return node;
}

const number = value => (value === null || value === undefined ? '–' : value.toFixed(3));
const percent = share => (share > 0 && share < 0.01 ? '<1%' : `${Math.round(100 * share)}%`);
const count = (n, one, many) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

function table(heads, rows, name = '') {
  const head = make(
    'tr',
    '',
    ...heads.map(text => {
      const th = make('th', '', text);
      th.scope = 'col';
      return th;
    }),
  );
  return make('div', 'table', make('table', name, make('thead', '', head), make('tbody', '', ...rows)));
}

const row = (...cells) =>
  make('tr', '', ...cells.map(cell => (cell instanceof Node ? cell : make('td', '', String(cell)))));

// On a phone each cell says itself what it is, see style.css.
function labelled(box) {
  const heads = [...box.querySelectorAll('thead th')].map(th => th.textContent);
  for (const line of box.querySelectorAll('tbody tr'))
    [...line.cells].forEach((cell, i) => {
      cell.dataset.head = heads[i];
    });
  return box;
}

function select(label, options, value, onchange) {
  const node = make('select');
  node.setAttribute('aria-label', label); // else its options are in its name
  for (const [key, text] of options) node.append(new Option(text, key, key === value, key === value));
  node.addEventListener('change', () => onchange(node.value));
  return make('label', 'rs-select', make('span', '', label), node);
}

// Asking. A later question makes the answer to an earlier one worthless.
async function ask(more = {}) {
  const mine = ++generation,
    question = {run, viewer: props.viewer, part, ...more};
  clearTimeout(timer);
  let answer = null;
  try {
    answer = await server.results(question);
  } catch (problem) {
    answer = null;
  }
  if (mine !== generation) return null; // another part was chosen
  return answer || {empty: 'Connection lost. Open the tab again in a moment.'};
}

async function open(more) {
  for (const tab of tabs.children) {
    const is = tab.dataset.part === part;
    tab.setAttribute('aria-selected', is);
    tab.tabIndex = is ? 0 : -1;
  }
  panel.setAttribute('aria-labelledby', id(part));
  if (!run) return;
  element.dataset.ended = ['running', 'queued'].includes(props.state) ? '' : 'yes';
  const of = part,
    d = await ask(part === 'samples' ? {...chosen, ...more} : more);
  if (d === null) return;
  element.dataset.part = of;
  const text = d.error || d.empty;
  panel.replaceChildren(...(text ? [make('p', 'rs-empty', text)] : DRAW[of](d)));
  if (text && d.refresh) panel.append(button('Refresh', () => open()));
  if (props.state === 'running' && (of === 'sweep' || of === 'samples'))
    timer = setTimeout(() => visible() && open(), 5 * props.period);
}

const visible = () => !document.hidden && element.offsetParent;

// Samples
function answer(text, isRight, p) {
  const cell = make('td', isRight === null ? '' : isRight ? 'rs-right' : 'rs-wrong', text === null ? '–' : text);
  if (text !== null && text.length <= 16) cell.classList.add('rs-short');
  if (p !== null && p !== undefined) cell.append(make('span', 'rs-p', ` ${p.toFixed(2)}`));
  return cell;
}

function sampleRow(d, sample) {
  const named = d.columns.length > 1;
  const texts = sample.texts.map((text, i) =>
    make('div', '', named ? make('span', 'rs-column', `${d.columns[i]}: `) : null, text),
  );
  const compared = d.labels.length > 0 || d.has_p;
  const cells = [
    make('td', 'rs-text', ...texts),
    make('td', '', sample.gold),
    answer(sample.predicted, compared ? sample.right : null, sample.p),
  ];
  if (d.has_base) cells.push(answer(sample.base, null, sample.base_p));
  const line = row(...cells);
  line.dataset.row = sample.row;
  line.title = `Row ${sample.row} of the data`;
  return line;
}

function sampleControls(d) {
  if (!d.labels.length) return null;
  const any = [['', 'Any'], ...d.labels.map(label => [label, label])];
  const choose = name => value => {
    chosen = {...chosen, [name]: value};
    open();
  };
  return make(
    'div',
    'rs-controls',
    select('Label', any, chosen.gold, choose('gold')),
    select('Predicted', any, chosen.predicted, choose('predicted')),
    select('Order', ORDERS, chosen.order, choose('order')),
  );
}

function moreSamples(d, body, shown) {
  if (shown >= d.total) return null;
  const note = button(`Show more (${(d.total - shown).toLocaleString('en')} left)`, async () => {
    const next = await ask({...chosen, offset: shown});
    if (!next || !next.rows) return;
    body.append(...next.rows.map(sample => sampleRow(next, sample)));
    const later = moreSamples(next, body, shown + next.rows.length);
    if (later) note.replaceWith(later);
    else note.remove();
  });
  return note;
}

function samples(d) {
  const heads = ['Text', d.labels.length ? 'Label' : 'Target', d.labels.length || d.has_p ? 'Predicted' : 'Output'];
  if (d.has_base) heads.push('Base model');
  const box = table(
    heads,
    d.rows.map(sample => sampleRow(d, sample)),
    'rs-samples',
  );
  const all =
    d.kept < d.of
      ? `${d.kept.toLocaleString('en')} of ${count(d.of, 'validation row', 'validation rows')} are kept. `
      : '';
  const what = `${count(d.total, 'row', 'rows')}, answered at step ${d.step.toLocaleString('en')}, the best one.`;
  return [
    sampleControls(d),
    make('p', 'rs-note', all + what),
    box,
    moreSamples(d, box.querySelector('tbody'), d.rows.length),
  ].filter(Boolean);
}

// Baselines
function baselines(d) {
  const rows = d.rows.map(one =>
    row(
      one.name,
      number(one.value),
      one.low === null ? '–' : `${number(one.low)} to ${number(one.high)}`,
      one.rows === null || one.rows === undefined ? '–' : one.rows.toLocaleString('en'),
      one.about,
    ),
  );
  return [
    make('p', 'rs-note', d.text),
    labelled(table(['', 'Value', 'Interval', 'Rows', 'What it is'], rows, 'rs-baselines')),
  ];
}

// Confusion
function confusionCell(d, i, j) {
  const of = d.matrix[i],
    total = of.reduce((a, b) => a + b, 0),
    n = of[j],
    share = total ? n / total : 0;
  const cell = make('td', i === j ? 'rs-cell rs-diagonal' : 'rs-cell');
  cell.style.setProperty('--share', share.toFixed(3));
  const face = [make('strong', '', n.toLocaleString('en')), make('span', '', total ? percent(share) : '')];
  const node = make('button', '', ...face);
  node.type = 'button';
  node.disabled = n === 0;
  node.setAttribute(
    'aria-label',
    `${d.labels[i]} predicted as ${d.labels[j]}: ${count(n, 'row', 'rows')}, ${percent(share)}`,
  );
  node.addEventListener('click', () => {
    chosen = {...chosen, gold: d.labels[i], predicted: d.labels[j]};
    go('samples', true);
  });
  cell.append(node);
  return cell;
}

function matrix(d) {
  const rows = d.labels.map((label, i) => {
    const head = make('th', '', label);
    head.scope = 'row';
    return make('tr', '', head, ...d.labels.map((_, j) => confusionCell(d, i, j)));
  });
  return table(['Label ↓ predicted →', ...d.labels], rows, 'rs-matrix');
}

function confusion(d) {
  const scores = d.labels.map((label, i) => {
    const s = d.scores[i];
    return row(label, s.count.toLocaleString('en'), number(s.precision), number(s.recall), number(s.f1));
  });
  const kept = d.kept < d.of ? ` ${d.kept.toLocaleString('en')} of ${d.of.toLocaleString('en')} rows are counted.` : '';
  return [
    make('p', 'rs-note', `A cell opens its rows. Shares are of the rows with that label.${kept}`),
    d.matrix ? matrix(d) : make('p', 'rs-empty', 'There are too many labels for a matrix.'),
    make('h4', '', 'Each label'),
    table(['Label', 'Rows', 'Precision', 'Recall', 'F1'], scores, 'rs-numbers'),
    make(
      'p',
      'rs-note',
      'Precision: how often it is right when it says this label. Recall: how many rows of the label it finds.',
    ),
  ];
}

// Calibration
function calibration(d) {
  const rows = d.bins.map(bin => {
    const bar = make('div', 'rs-bar', make('div', 'rs-fill'), make('div', 'rs-tick'));
    bar.style.setProperty('--right', bin.right.toFixed(3));
    bar.style.setProperty('--said', bin.said.toFixed(3));
    bar.setAttribute('aria-hidden', 'true');
    return row(
      `${bin.from.toFixed(1)} to ${bin.to.toFixed(1)}`,
      make('td', 'rs-wide', bar),
      percent(bin.right),
      percent(bin.said),
      bin.count.toLocaleString('en'),
    );
  });
  return [
    make('p', 'rs-note', d.text),
    table(['Probability', 'Bar: right. Line: expected', 'Right', 'Expected', 'Rows'], rows, 'rs-numbers rs-bins'),
  ];
}

const cost = d => [
  make('dl', 'rs-list', ...d.items.flatMap(([name, value]) => [make('dt', '', name), make('dd', '', value)])),
];

// Settings and log
async function copy(text, node) {
  const before = node.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch (problem) {
    // no clipboard on a page that is not served securely
    const area = make('textarea');
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  node.textContent = 'Copied';
  setTimeout(() => {
    node.textContent = before;
  }, 1500);
}

function block(title, text) {
  const pre = make('pre', '', text);
  pre.tabIndex = 0;
  pre.setAttribute('aria-label', title);
  return make(
    'section',
    'rs-block',
    make(
      'div',
      'rs-top',
      make('h4', '', title),
      button('Copy', node => copy(text, node)),
    ),
    pre,
  );
}

const settings = d => [
  block('The command that repeats this run', d.command),
  block('Settings, as they were at the start', d.yaml),
];

function log(d) {
  const pre = make('pre', 'rs-log', d.text);
  pre.tabIndex = 0;
  pre.setAttribute('aria-label', 'End of the log');
  requestAnimationFrame(() => {
    pre.scrollTop = pre.scrollHeight;
  });
  return [
    make(
      'div',
      'rs-top',
      make('p', 'rs-note', d.cut ? 'The end of the log.' : 'The whole log.'),
      button('Refresh', () => open()),
    ),
    pre,
  ];
}

// Sweep
function trialButtons(trial) {
  const cell = make('td', 'rs-actions');
  if (trial.used) cell.append(make('span', 'rs-used', 'In use'));
  else if (trial.has_adapter)
    cell.append(
      button('Use this one', node => {
        node.disabled = true;
        trigger('use', {run, trial: trial.trial});
      }),
    );
  const name = 'Copy settings';
  cell.append(
    button(name, async node => {
      const d = await server.results({run, viewer: props.viewer, part: 'settings', trial: trial.trial});
      if (d.yaml) copy(d.yaml, node);
    }),
  );
  return cell;
}

function sweep(d) {
  const rows = d.rows.map((trial, i) => {
    const line = row(
      trial.value === null ? '–' : i + 1,
      ...trial.values,
      number(trial.value),
      trial.best_step === null ? '–' : trial.best_step,
      trial.reason || 'trains',
      trialButtons(trial),
    );
    line.dataset.trial = trial.trial;
    line.className = trial.used ? 'rs-chosen' : '';
    return line;
  });
  const note = d.ended
    ? 'Best first. Try, Export and Download take the one in use.'
    : 'Best so far first; the ranking may still change.';
  const parts = [
    make('p', 'rs-note', note),
    labelled(table(['Rank', ...d.options, d.metric, 'Best step', 'Ended', ''], rows, 'rs-sweep')),
  ];
  if (d.over_seeds.length) {
    const means = d.over_seeds.map(of =>
      row(...of.values, number(of.mean), of.std === null ? '–' : number(of.std), of.trials),
    );
    parts.push(
      make('h4', '', 'Over the seeds'),
      table([...d.seed_options, `Mean ${d.metric}`, 'Standard deviation', 'Seeds'], means),
    );
  }
  return parts;
}

const DRAW = {samples, baselines, confusion, calibration, cost, settings, log, sweep};

function go(name, focus = false) {
  part = name;
  open();
  if (focus) tabs.querySelector(`[data-part=${name}]`)?.focus();
}

function drawTabs() {
  const shown = PARTS.filter(([name]) => name !== 'sweep' || props.trials > 0);
  if (!shown.some(([name]) => name === part)) part = 'samples';
  tabs.replaceChildren(
    ...shown.map(([name, text]) => {
      const tab = button(text, () => go(name), 'rs-tab');
      tab.setAttribute('role', 'tab');
      tab.setAttribute('aria-controls', panel.id);
      tab.dataset.part = name;
      tab.id = id(name);
      return tab;
    }),
  );
}

tabs.addEventListener('keydown', event => {
  const all = [...tabs.children],
    at = all.findIndex(tab => tab.dataset.part === part);
  const to = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1}[event.key];
  if (to === undefined) return;
  event.preventDefault();
  go(all[(to + all.length) % all.length].dataset.part, true);
});

function start() {
  run = props.value || null;
  generation++;
  chosen = {gold: '', predicted: '', order: 'wrong'};
  part = props.trials > 0 ? 'sweep' : 'samples';
  panel.replaceChildren();
  drawTabs();
  open();
}

watch('value', () => {
  if ((props.value || null) !== run) start();
});
watch('state', () => open()); // it has ended: there is more to show
watch('turn', () => open()); // another trial is in use
start();
listen(window, 'ptune:failed', () => {
  for (const node of panel.querySelectorAll('.rs-actions button')) node.disabled = false;
});
