// The live view of one run: progress, four plots and the newest sample predictions. The value is the id of the run.
// Each tick asks the server for what is new since `cursor`. The points are kept here and drawn anew from here.
const PERIOD = props.period,
  MOST_POINTS = 6000,
  SAMPLES_WHILE_ACTIVE = 3,
  MOST_SAMPLES = 6,
  FARTHEST = 3;

let run = null,
  generation = 0,
  timer = null,
  wait = PERIOD,
  busy = false;
let cursor, epoch, ended, points, state;

const nothing = () => ({
  steps: {x: [], loss: [], learning_rate: [], grad_norm: [], seconds: []},
  evals: {x: [], loss: [], value: [], best: [], seconds: []},
  tokens: [],
  plan: null,
  baseline: null,
  final: null,
  notes: [],
  epochsPerStep: null,
});

function take(d) {
  if (d.reset) points = nothing();
  for (const series of ['steps', 'evals'])
    for (const [name, values] of Object.entries(d[series])) (points[series][name] ??= []).push(...values);
  points.tokens.push(...d.tokens);
  points.plan = d.plan;
  points.baseline = d.baseline;
  points.final = d.final ?? null;
  points.notes = d.notes ?? [];
  points.epochsPerStep = d.epochs_per_step;
}

const isLoss = () => points.plan && points.plan.metric === 'loss';
const xs = of => across(of, points.epochsPerStep);

// The whole run's width from the start, where it is known.
function wholeRange() {
  const steps = points.plan && points.plan.steps;
  if (view.axis === 'step' && steps) return [0, steps];
  if (view.axis === 'epoch' && steps && points.epochsPerStep) return [0, steps * points.epochsPerStep];
  return null;
}

function spread() {
  const all = [...xs(points.steps), ...xs(points.evals)].filter(Number.isFinite);
  return wholeRange() || [0, all.length ? all.reduce((a, b) => Math.max(a, b)) : 1];
}

function layoutOfRun(more) {
  const layout = layoutOf(more),
    range = wholeRange();
  if (range) layout.xaxis.range = range;
  return layout;
}

const line = (name, of, x, y, more = {}) => ({
  name,
  x,
  y,
  mode: 'lines',
  line: {color: color(of), width: 2},
  hovertemplate: '%{y:.4g}',
  ...more,
});
const marked = (name, of, x, y, symbol) => line(name, of, x, y, {mode: 'lines+markers', marker: {size: 6, symbol}});

function dashed(name, of, y, dash) {
  return line(name, of, spread(), [y, y], {line: {color: color(of), width: 1.5, dash}, showlegend: false});
}

// The best point: of the result on all validation rows once there is one, before that of the evaluations.
function star(name) {
  const {evals, final} = points,
    at = final ? evals.x.indexOf(final.step) : evals.best.lastIndexOf(true),
    x = xs(evals);
  const y = at < 0 ? null : final ? final[name] : evals[name][at];
  const spread =
    final && name === 'value' && final.low !== null ? ` (${short(final.low)} to ${short(final.high)})` : '';
  return {
    name: final ? 'result' : 'best',
    x: at < 0 ? [] : [x[at]],
    y: at < 0 ? [] : [y],
    mode: 'markers',
    cliponaxis: false,
    hovertemplate: final ? `%{y:.4g}${spread}, all ${count(final.rows)} rows` : '%{y:.4g}',
    marker: {
      symbol: 'star',
      size: 14,
      color: color('validation'),
      line: {width: 1, color: css('--block-background-fill')},
    },
  };
}

const count = rows => (rows === null || rows === undefined ? '' : rows.toLocaleString('en'));

// A dashed line's name stands on it, above or below so that two names do not meet.
const nameOn = (text, y, above, log) => ({
  text,
  x: 1,
  xref: 'paper',
  xanchor: 'right',
  y: log ? Math.log10(y) : y,
  yanchor: above ? 'bottom' : 'top',
  showarrow: false,
  font: {size: 11},
});

function drawLoss() {
  const {steps, evals, baseline} = points,
    zero = isLoss() && baseline ? baseline.zero_shot : null;
  const traces = [
    line('train', 'train', xs(steps), steps.loss, {
      opacity: 0.35,
      hoverinfo: 'skip',
      hovertemplate: null,
      showlegend: false,
      line: {color: color('train'), width: 1},
    }),
    line('train, smoothed', 'train', xs(steps), smoothed(steps.loss)),
    marked('validation', 'validation', xs(evals), evals.loss, 'diamond'),
    star('loss'),
  ];
  if (zero !== null) traces.push(dashed('zero-shot', 'zero', zero, 'dot'));
  const annotations = zero === null ? [] : [nameOn(`zero-shot ${short(zero)}`, zero, true, view.log)];
  draw('lp-loss', traces, layoutOfRun({yaxis: lossAxis(), annotations}));
}

// What a result stands beside. A head that has not learned is none of them.
const LINES = [
  ['majority', () => 'majority', 'majority', 'dash'],
  ['zero_shot', () => 'zero-shot', 'zero', 'dot'],
  ['few_shot', found => `${found.few_shot_examples} in context`, 'few', 'dashdot'],
  ['probe', () => 'probe', 'probe', 'longdash'],
];
const brief = value => value.toFixed(value > 0.995 || value < 0.005 ? 3 : 2);

function drawMetric() {
  const {evals, baseline, plan} = points,
    x = xs(evals),
    traces = [];
  const metric = marked(plan ? plan.metric : 'metric', 'metric', x, evals.value, 'circle');
  if (evals.low?.some(low => low !== null)) {
    const edge = {mode: 'lines', line: {width: 0}, hoverinfo: 'skip', hovertemplate: null};
    traces.push(line('95 % band, low', 'metric', x, evals.low, {...edge, showlegend: false}));
    traces.push(
      line('95 % band', 'metric', x, evals.high, {...edge, fill: 'tonexty', fillcolor: color('metric') + '2e'}),
    );
    const on = i => (evals.rows?.[i] ? `, ${count(evals.rows[i])} rows` : '');
    metric.customdata = evals.low.map((low, i) => `${short(low)} to ${short(evals.high[i])}${on(i)}`);
    metric.hovertemplate = '%{y:.4g} (%{customdata})';
  }
  traces.push(metric, star('value'));
  const found = baseline || {},
    range = (zoom['lp-metric'] || {}).yaxis || [0, 1.03];
  const known = LINES.map(([key, name, of, dash]) => ({
    key,
    name: name(found),
    of,
    dash,
    y: found[key] ?? null,
  })).filter(each => each.y !== null);
  for (const {key, name, of, dash, y} of known) {
    const interval = found[`${key}_interval`],
      band = interval ? ` (${short(interval[0])} to ${short(interval[1])})` : '';
    traces.push({...dashed(name, of, y, dash), hovertemplate: `%{y:.4g}${band}`});
  }
  const named = known.map(({name, of, y}) => ({text: `${name} ${brief(y)}`, of, y}));
  draw(
    'lp-metric',
    traces,
    layoutOfRun({yaxis: axisOf({range: [0, 1.03]}), annotations: namesOn(named, 'lp-metric', range)}),
  );
  q('.lp-notes').replaceChildren(
    ...points.notes.map(note => Object.assign(document.createElement('li'), {textContent: note})),
  );
}

function drawRate() {
  const {steps} = points,
    x = xs(steps);
  const traces = [
    line('learning rate (left)', 'rate', x, steps.learning_rate),
    line('gradient norm (right)', 'norm', x, steps.grad_norm, {
      yaxis: 'y2',
      line: {color: color('norm'), width: 1.2, dash: 'dot'},
    }),
  ];
  const right = axisOf({
    overlaying: 'y',
    side: 'right',
    showgrid: false,
    rangemode: 'tozero',
    tickmode: 'auto',
    nticks: 5,
  });
  draw(
    'lp-rate',
    traces,
    layoutOfRun({
      yaxis: axisOf({rangemode: 'tozero', exponentformat: 'power'}),
      yaxis2: right,
      margin: {l: 44, r: 40, t: 6, b: 36},
    }),
  );
}

function tokenText(moment, i) {
  const near = moment.nearest[i].map(word => `“${plain(word.trim() || word)}”`).join(', ');
  const [moved, length, word] = [moment.moved[i], moment.norm[i], moment.word_norm].map(short);
  return `<b>P${moment.numbers[i]}</b> moved ${moved}, length ${length} (a word: ${word})<br>nearest: ${near}`;
}

// Steps and seconds of the evaluations at which the virtual tokens are known.
function moments() {
  const seconds = new Map(points.evals.x.map((step, i) => [step, points.evals.seconds[i]]));
  return {x: points.tokens.map(m => m.step), seconds: points.tokens.map(m => seconds.get(m.step) ?? null)};
}

const byDistance = moment => moment.moved.map((moved, i) => [moved, i]).sort((a, b) => b[0] - a[0]);

// A line for each virtual token; of very many their mean and range, and by name those that moved most.
function drawTokens() {
  const {tokens} = points,
    x = xs(moments()),
    newest = tokens[tokens.length - 1],
    annotations = [],
    traces = [];
  const said = {hovertemplate: '%{customdata}<extra></extra>'};
  if (newest && newest.numbers.length === newest.num_virtual_tokens) {
    newest.numbers.forEach((number, i) =>
      traces.push(
        line(
          `P${number}`,
          'tokens',
          x,
          tokens.map(m => m.moved[i]),
          {
            ...said,
            opacity: 0.55,
            showlegend: false,
            mode: 'lines+markers',
            marker: {size: 4},
            line: {color: color('tokens'), width: 1.3},
            customdata: tokens.map(m => tokenText(m, i)),
          },
        ),
      ),
    );
    const [[moved, i]] = byDistance(newest);
    annotations.push({
      text: `P${newest.numbers[i]}`,
      x: x[x.length - 1],
      y: moved,
      xanchor: 'left',
      xshift: 4,
      showarrow: false,
      font: {size: 11},
    });
  } else if (newest) {
    const edge = {mode: 'lines', line: {width: 0}, hoverinfo: 'skip', hovertemplate: null};
    const farthest = m =>
      byDistance(m)
        .slice(0, FARTHEST)
        .map(([, i]) => tokenText(m, i))
        .join('<br>');
    traces.push(
      line(
        'least',
        'tokens',
        x,
        tokens.map(m => m.moved_low),
        {...edge, showlegend: false},
      ),
    );
    traces.push(
      line(
        'least to most',
        'tokens',
        x,
        tokens.map(m => m.moved_high),
        {...edge, fill: 'tonexty', fillcolor: color('tokens') + '2e'},
      ),
    );
    traces.push({
      ...marked(
        `mean of ${newest.num_virtual_tokens}`,
        'tokens',
        x,
        tokens.map(m => m.moved_mean),
        'circle',
      ),
      ...said,
      customdata: tokens.map(m => `mean ${short(m.moved_mean)}<br>${farthest(m)}`),
    });
  }
  const layout = layoutOfRun({
    hovermode: 'closest',
    yaxis: axisOf({rangemode: 'tozero'}),
    annotations,
    margin: {l: 44, r: 32, t: 6, b: 36},
  });
  layout.hoverlabel.align = 'left';
  draw('lp-tokens', traces, layout);
}

function drawAll() {
  if (!points) return;
  chooseUnit([points.steps.seconds.at(-1), points.evals.seconds.at(-1)]);
  const hidden = {metric: isLoss(), tokens: ended && !points.tokens.length}; // older runs do not say where they went
  const panels = [...element.querySelectorAll('.lp-panel')];
  for (const panel of panels) panel.hidden = Boolean(hidden[panel.dataset.plot]);
  const shown = panels.filter(panel => !panel.hidden);
  panels.forEach(panel => panel.classList.toggle('lp-wide', shown.length % 2 === 1 && panel === shown[0]));
  q('.lp-metric-title').textContent = points.plan ? capital(points.plan.metric) + ' on validation' : 'Validation';
  drawLoss();
  drawRate();
  if (!hidden.metric) drawMetric();
  if (!hidden.tokens) drawTokens();
}

function csvOf(plot) {
  const {steps, evals, tokens, epochsPerStep, plan} = points,
    start = (of, i) => [of.x[i], epochsPerStep && of.x[i] * epochsPerStep, of.seconds[i]];
  const head = ['step', 'epoch', 'seconds'];
  if (plot === 'metric')
    return [
      [...head, plan ? plan.metric : 'value', 'low_95', 'high_95', 'is_best', 'rows'],
      [
        ...evals.x.map((_, i) => [
          ...start(evals, i),
          evals.value[i],
          evals.low?.[i],
          evals.high?.[i],
          evals.best[i] ? 1 : 0,
          evals.rows?.[i],
        ]),
        ...(points.final
          ? [points.final].map(f => [
              f.step,
              epochsPerStep && f.step * epochsPerStep,
              null,
              f.value,
              f.low,
              f.high,
              1,
              f.rows,
            ])
          : []),
      ],
    ];
  if (plot === 'rate')
    return [
      [...head, 'learning_rate', 'gradient_norm'],
      steps.x.map((_, i) => [...start(steps, i), steps.learning_rate[i], steps.grad_norm[i]]),
    ];
  if (plot === 'tokens')
    return [
      ['step', 'token', 'moved', 'length', 'nearest_1', 'nearest_2', 'nearest_3'],
      tokens.flatMap(m => m.numbers.map((number, i) => [m.step, `P${number}`, m.moved[i], m.norm[i], ...m.nearest[i]])),
    ];
  const rows = new Map();
  steps.x.forEach((step, i) => rows.set(step, [...start(steps, i), steps.loss[i], null]));
  evals.x.forEach((step, i) => {
    const row = rows.get(step) || [...start(evals, i), null, null];
    row[4] = evals.loss[i];
    rows.set(step, row);
  });
  return [[...head, 'train_loss', 'validation_loss'], [...rows.values()].sort((a, b) => a[0] - b[0])];
}

for (const button of element.querySelectorAll('.lp-csv')) {
  button.addEventListener('click', () => {
    const plot = button.closest('.lp-panel').dataset.plot;
    if (points) saveCsv(`ptune-${run.slice(0, 8)}-${plot}.csv`, ...csvOf(plot));
  });
}

function showProgress(d) {
  const p = d.progress,
    share = p && p.steps ? Math.min(1, p.step / p.steps) : 0,
    percent = d.state === 'finished' ? 100 : 100 * share;
  q('.lp-bar > div').style.width = percent + '%';
  q('.lp-bar').setAttribute('aria-valuenow', Math.round(percent));
  q('.lp-progress').dataset.state = d.state;
  q('.lp-progress').classList.toggle('lp-waiting', !d.done && d.state === 'running' && !share);
  if (q('.lp-state').textContent !== d.state) q('.lp-state').textContent = d.state;
  q('.lp-status').textContent = ['failed', 'interrupted'].includes(d.state) ? '' : d.status; // the alarm above says why
  q('.lp-empty').hidden = !isEmpty();
  q('.lp-empty').textContent = d.done
    ? 'This run ended before its first step.'
    : d.state === 'queued'
      ? 'It starts when the runs before it are done.'
      : 'The first points appear within seconds.';
}

function cell(row, text, name) {
  const td = row.insertCell();
  td.textContent = text;
  if (name) td.className = name;
}

function showSamples(samples, done) {
  const newest = samples[samples.length - 1],
    body = q('.lp-samples tbody');
  if (!newest) return;
  q('.lp-samples').hidden = false;
  q('.lp-samples-step').textContent = newest.step;
  body.replaceChildren();
  // Text has no probability, and is not right or wrong.
  const writes = newest.rows.every(sample => sample.p === undefined || sample.p === null);
  const heads = writes ? ['Text', 'Target', 'Output'] : ['Text', 'Label', 'Predicted', 'p'];
  q('.lp-samples thead tr').replaceChildren(
    ...heads.map(head => Object.assign(document.createElement('th'), {textContent: head})),
  );
  for (const sample of newest.rows.slice(0, done ? MOST_SAMPLES : SAMPLES_WHILE_ACTIVE)) {
    const row = body.insertRow(),
      right = sample.predicted === sample.label;
    cell(row, sample.text, 'lp-text');
    cell(row, sample.label);
    cell(row, sample.predicted, writes ? '' : right ? 'lp-right' : 'lp-wrong');
    if (!writes) cell(row, sample.p.toFixed(2));
  }
}

const isEmpty = () => points.steps.x.length + points.evals.x.length === 0;

function apply(d) {
  const before =
    points && !isEmpty() && JSON.stringify([points.plan?.steps, points.baseline, points.final, points.notes, ended]);
  if (!points) points = nothing();
  take(d);
  cursor = points.steps.x.length > MOST_POINTS ? 0 : d.cursor;
  epoch = d.epoch; // 0: thinned again
  ended = d.done && cursor === d.cursor;
  const after = JSON.stringify([points.plan?.steps, points.baseline, points.final, points.notes, ended]);
  element.classList.toggle('lp-nothing', isEmpty()); // a plot drawn while it is hidden has no width
  if (!isEmpty() && (d.reset || d.evals.x.length || d.tokens.length || before !== after)) drawAll();
  else if (d.steps.x.length) {
    drawLoss();
    drawRate();
  }
  showProgress(d);
  showSamples(d.samples, d.done);
  if (d.state !== state) {
    state = d.state;
    if (state !== props.state) moved();
  }
}

// A new state changes what can be done with the run: the page's buttons and the strip follow.
function moved() {
  trigger('moved', {run, state});
  window.dispatchEvent(new CustomEvent('ptune:refresh'));
}

async function tick() {
  clearTimeout(timer);
  if (busy || !run || isGone()) return;
  if (document.hidden || !element.offsetParent || !window.Plotly) {
    timer = setTimeout(tick, 250);
    return;
  }
  const mine = generation;
  let d = null;
  busy = true;
  try {
    d = await server.poll({run, cursor, epoch, viewer: props.viewer});
    wait = d.error ? wait : PERIOD;
  } catch (problem) {
    wait = Math.min(SLOWEST, 2 * wait);
  }
  busy = false;
  if (mine !== generation) return tick();
  // An error is said and asked about again: what failed once, on a full disk say, need not fail twice.
  if (d && d.error) wait = Math.min(SLOWEST, 2 * wait);
  timer = setTimeout(tick, wait);
  if (!d) q('.lp-status').textContent = 'Connection lost; training goes on. Reconnecting…';
  else if (d.error) q('.lp-status').textContent = d.error;
  else apply(d);
  const isWaiting = d && d.state === 'running' && points && !points.steps.x.length && !points.evals.x.length;
  if (ended || isWaiting) clearTimeout(timer);
  if (isWaiting) timer = setTimeout(tick, wait / 3); // the first point, as soon as it is there
  element.dataset.updates = Number(element.dataset.updates || 0) + 1;
}

function start() {
  generation++;
  run = props.value || null;
  cursor = 0;
  epoch = 0;
  ended = false;
  state = null;
  points = null;
  wait = PERIOD;
  element.dataset.updates = 0;
  element.classList.toggle('lp-idle', !run);
  q('.lp-samples').hidden = true;
  tick();
}

watch('value', () => {
  if ((props.value || null) !== run) start();
});
watch('state', () => {
  if (ended && props.state !== state) {
    ended = false;
    tick();
  }
}); // resumed
listen(document, 'visibilitychange', tick);
start();
