// Several runs in one plot, and the settings in which they differ. The list of runs says which (`ptune:compare`, its
// keys are `run` or `run/trial`); colour, dash and a letter tell them apart.
const PERIOD = props.period,
  MOST_POINTS = 3000;
const HUES = {
  light: ['#3f5fe0', '#b4500f', '#0b7a65', '#9333b5', '#8a6200', '#be2a4b', '#4f5b6e', '#0f7490'],
  dark: ['#8ba3ff', '#f0975a', '#2cc5a5', '#d494e8', '#d9ab3d', '#ff8ba3', '#b3bfcf', '#5cc6e0'],
};
const DASHES = ['solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot', '6px,2px,2px,2px,2px,2px', '2px,5px'];
const SVG_DASHES = ['', '8 5', '2 3', '8 3 2 3', '14 5', '14 3 2 3', '6 2 2 2 2 2', '2 5'];
const SYMBOLS = ['circle', 'diamond', 'square', 'triangle-up', 'x', 'cross', 'star', 'triangle-down'];

let curves = [],
  keys = [],
  open = false,
  timer = null,
  busy = false,
  generation = 0,
  wait = PERIOD,
  differing = [];
const hue = i => HUES[dark() ? 'dark' : 'light'][i];
const letter = i => String.fromCharCode(65 + i);
const empty = key => ({
  key,
  cursor: 0,
  epoch: 0,
  steps: {x: [], loss: [], seconds: []},
  evals: {x: [], loss: [], value: [], seconds: []},
});

function question(curve) {
  const [run, trial] = curve.key.split('/');
  return {run, trial: trial === undefined ? null : Number(trial), cursor: curve.cursor, epoch: curve.epoch};
}

function take(curve, d) {
  if (d.reset) Object.assign(curve, empty(curve.key));
  for (const series of ['steps', 'evals'])
    for (const name of Object.keys(curve[series])) curve[series][name].push(...d[series][name]);
  const {epoch, name, state, created, metric, best, done, baselines = [], head = null} = d;
  Object.assign(curve, {
    epoch,
    name,
    state,
    created,
    metric,
    best,
    done,
    baselines,
    head,
    bestStep: d.best_step,
    epochsPerStep: d.epochs_per_step,
  });
  curve.cursor = curve.steps.x.length > MOST_POINTS ? 0 : d.cursor;
}

function trace(i, of, values, kind) {
  const few = of.x.length < 60,
    isTrain = kind === 'train';
  return {
    name: letter(i),
    x: across(of, curves[i].epochsPerStep),
    y: values,
    mode: isTrain || !few ? 'lines' : 'lines+markers',
    showlegend: false,
    line: {color: hue(i), width: 1.8, dash: DASHES[i]},
    marker: {size: 6, symbol: SYMBOLS[i]},
    hovertemplate: '%{y:.4g}',
  };
}

const letters = (traces, log) =>
  traces
    .filter(t => t.y.length)
    .map(t => ({
      text: `<b>${t.name}</b>`,
      x: t.x.at(-1),
      y: log ? Math.log10(t.y.at(-1)) : t.y.at(-1),
      xanchor: 'left',
      xshift: 5,
      showarrow: false,
      font: {color: t.line.color, size: 12},
    }));

function drawAll() {
  if (!open || curves.some(curve => curve.name === undefined)) return;
  chooseUnit(curves.map(curve => curve.steps.seconds.at(-1)));
  const train = q('.ov-split').value === 'train',
    wide = {margin: {l: 44, r: 24, t: 6, b: 36}};
  const loss = curves.map((curve, i) =>
    train ? trace(i, curve.steps, smoothed(curve.steps.loss), 'train') : trace(i, curve.evals, curve.evals.loss),
  );
  draw('ov-loss', loss, layoutOf({...wide, yaxis: lossAxis(), annotations: letters(loss, view.log)}));
  const metric = curves
    .map((curve, i) => (curve.metric && curve.metric !== 'loss' ? trace(i, curve.evals, curve.evals.value) : null))
    .filter(Boolean);
  q('.ov-metrics').hidden = metric.length === 0;
  q('.ov-metric-title').textContent =
    capital(curves.map(curve => curve.metric).find(name => name && name !== 'loss') || 'metric') + ' on validation';
  if (metric.length)
    draw('ov-metric', metric, layoutOf({...wide, yaxis: axisOf({range: [0, 1.03]}), annotations: letters(metric)}));
  drawTable();
}

const when = seconds => new Date(1000 * seconds).toLocaleString([], {dateStyle: 'short', timeStyle: 'short'});

function swatch(i) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg'),
    stroke = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  svg.setAttribute('class', 'ov-swatch');
  svg.setAttribute('viewBox', '0 0 36 8');
  svg.setAttribute('aria-hidden', 'true');
  for (const [name, value] of Object.entries({
    x1: 0,
    y1: 4,
    x2: 36,
    y2: 4,
    stroke: hue(i),
    'stroke-width': 2.5,
    'stroke-dasharray': SVG_DASHES[i],
  }))
    stroke.setAttribute(name, value);
  svg.append(stroke);
  return svg;
}

const told = one => (one ? short(one.value) + (one.band ? ` (${one.band})` : '') : '–');

function drawTable() {
  const head = q('.ov-table thead tr'),
    body = q('.ov-table tbody');
  head.replaceChildren(
    make('th'),
    ...curves.map((curve, i) => {
      const th = make('th');
      th.scope = 'col';
      th.append(
        swatch(i),
        make('span', 'ov-name', `${letter(i)}  ${curve.name}`),
        make(
          'span',
          'ov-when',
          `${curve.state}, started ${when(curve.created)}`,
        ),
      );
      return th;
    }),
  );
  const best = curve =>
    curve.best === null || curve.best === undefined ? '–' : `${short(curve.best)} at step ${curve.bestStep}`;
  const metrics = new Set(curves.map(curve => curve.metric).filter(Boolean));
  const names = [...new Set(curves.flatMap(curve => curve.baselines.map(one => one.name)))];
  const beside = names.map(name => ({
    setting: capital(name),
    values: curves.map(curve => told(curve.baselines.find(one => one.name === name))),
  }));
  const heads = curves.some(curve => curve.head)
    ? [{setting: 'The head reads', values: curves.map(curve => curve.head || '–')}]
    : [];
  const rows = [
    {setting: metrics.size === 1 ? `Best ${[...metrics][0]}` : 'Best', values: curves.map(best)},
    ...beside,
    ...heads,
    ...differing,
  ];
  body.replaceChildren(
    ...rows.map(row => {
      const tr = make('tr'),
        th = make('th', '', row.setting);
      th.scope = 'row';
      tr.append(th, ...row.values.map(value => make('td', '', value)));
      return tr;
    }),
  );
  q('.ov-same').hidden = differing.length > 0;
}

function showProblem(text) {
  q('.ov-problem').textContent = text;
  q('.ov-problem').hidden = !text;
}

async function tick() {
  clearTimeout(timer);
  if (busy || !open || isGone()) return;
  if (document.hidden || !element.offsetParent || !window.Plotly) {
    timer = setTimeout(tick, 250);
    return;
  }
  const mine = generation,
    asked = curves;
  let d = null;
  busy = true;
  try {
    d = await server.compare({runs: asked.map(question), viewer: window.ptuneViewer});
    wait = d.error ? wait : PERIOD;
  } catch (problem) {
    wait = Math.min(SLOWEST, 2 * wait);
  }
  busy = false;
  if (mine !== generation) return tick();
  showProblem(!d ? 'Connection lost; training goes on. Reconnecting…' : d.error || '');
  if (d && d.error)
    wait = Math.min(SLOWEST, 2 * wait); // what failed once need not fail twice
  else if (d) {
    const isNew =
      d.differing !== null ||
      d.curves.some(
        (curve, i) => curve.reset || curve.steps.x.length || curve.evals.x.length || curve.state !== asked[i].state,
      );
    d.curves.forEach((curve, i) => take(asked[i], curve));
    differing = d.differing || differing;
    if (isNew) drawAll();
    if (asked.every(curve => curve.done && curve.cursor)) return; // nothing more will come
  }
  timer = setTimeout(tick, wait);
}

function compare(detail) {
  generation++;
  keys = detail.keys;
  open = detail.open && keys.length > 1;
  wait = PERIOD;
  const known = new Map(curves.map(curve => [curve.key, curve]));
  // A run that resumed or joined is asked for from its beginning: then the table comes with it.
  curves = keys.map(key => known.get(key) || empty(key));
  if (curves.length && curves.every(curve => curve.cursor))
    curves = curves.map((curve, i) => (i ? curve : empty(curve.key)));
  q('.ov').hidden = !open;
  q('.ov-title').textContent = `Comparing ${keys.length} runs`;
  showProblem('');
  tick();
}

q('.ov-close').addEventListener('click', () => window.dispatchEvent(new CustomEvent('ptune:close-overlay')));
q('.ov-split').addEventListener('change', () => {
  q('.ov-smoothing').hidden = q('.ov-split').value !== 'train';
  redraw();
});
for (const button of element.querySelectorAll('.lp-csv'))
  button.addEventListener('click', () => {
    const isLoss = button.dataset.plot === 'loss',
      train = isLoss && q('.ov-split').value === 'train',
      rows = [];
    curves.forEach((curve, i) => {
      const of = train ? curve.steps : curve.evals,
        values = isLoss ? of.loss : of.value;
      of.x.forEach((step, at) =>
        rows.push([
          letter(i),
          curve.name,
          curve.key,
          step,
          curve.epochsPerStep && step * curve.epochsPerStep,
          of.seconds[at],
          values[at],
        ]),
      );
    });
    saveCsv(
      `ptune-compared-${button.dataset.plot}.csv`,
      [
        'letter',
        'run',
        'id',
        'step',
        'epoch',
        'seconds',
        isLoss ? (train ? 'train_loss' : 'validation_loss') : 'value',
      ],
      rows,
    );
  });
listen(window, 'ptune:compare', event => compare(event.detail));
