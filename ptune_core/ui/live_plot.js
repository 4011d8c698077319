// The live view of one run: progress line, loss plot, metric plot and the newest sample predictions.
// Gradio gives `element`, `props`, `server`, `trigger` and `watch`. The value is the id of the run that is shown.
// Each tick asks the server for what is new since `cursor`; Plotly extends its own arrays, so zoom and hover survive.
const PERIOD = props.period, SLOWEST = 12000, MOST_POINTS = 6000, MOST_SAMPLES = 6, SMOOTHING = 0.9;
const COLORS = {train: '#5b7cfa', validation: '#e8833a', metric: '#14a085', majority: '#9aa3b2', zero: '#c06bd4'};
const q = selector => element.querySelector(selector);
const css = name => getComputedStyle(document.body).getPropertyValue(name).trim();

let run = null, generation = 0, timer = null, wait = PERIOD, busy = false;
let cursor, epoch, ready, ended, smooth, points, plan, baseline, state;

const config = {responsive: true, displaylogo: false, showSendToCloud: false,
  modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d']};

function axisColors() {
  const text = css('--body-text-color-subdued'), grid = css('--border-color-primary');
  return {'font.color': text, 'xaxis.gridcolor': grid, 'yaxis.gridcolor': grid, 'xaxis.linecolor': grid,
    'hoverlabel.bgcolor': css('--background-fill-primary'), 'hoverlabel.bordercolor': grid};
}

function layout(yaxis) {
  const text = css('--body-text-color-subdued'), grid = css('--border-color-primary');
  return {
    height: 300, margin: {l: 46, r: 10, t: 8, b: 36}, uirevision: run, hovermode: 'x unified',
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: {color: text, size: 12, family: css('--font')},
    hoverlabel: {bgcolor: css('--background-fill-primary'), bordercolor: grid},
    legend: {orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom'},
    xaxis: {title: {text: 'step', standoff: 6}, gridcolor: grid, linecolor: grid, zeroline: false,
      range: plan ? [0, plan.steps] : undefined},
    yaxis: {gridcolor: grid, zeroline: false, ...yaxis},
  };
}

const line = (name, color, x, y, more = {}) => ({name, x, y, mode: 'lines', line: {color, width: 2}, ...more});
const dashed = (name, color, y) => line(name, color, plan ? [0, plan.steps] : [], plan ? [y, y] : [],
  {line: {color, width: 1.5, dash: 'dash'}});
const star = (x, y, color) => ({name: 'best', x, y, mode: 'markers', cliponaxis: false, marker: {symbol: 'star', size: 13, color}});
const isLoss = () => plan && plan.metric === 'loss';

function smoothed(values) {
  return values.map(v => (smooth = smooth === null ? v : SMOOTHING * smooth + (1 - SMOOTHING) * v));
}

function bestOf(evals) {
  const at = evals.best.lastIndexOf(true);
  return at < 0 ? null : {x: evals.x[at], loss: evals.loss[at], value: evals.value[at]};
}

function lossTraces(d, best) {
  const traces = [
    line('train', COLORS.train, d.steps.x, d.steps.loss, {opacity: 0.3, hoverinfo: 'skip', line: {color: COLORS.train, width: 1}}),
    line('train, smoothed', COLORS.train, d.steps.x, smoothed(d.steps.loss)),
    line('validation', COLORS.validation, d.evals.x, d.evals.loss, {mode: 'lines+markers', marker: {size: 6}}),
    star(best ? [best.x] : [], best ? [best.loss] : [], COLORS.validation),
  ];
  if (isLoss() && baseline && baseline.zero_shot !== null) traces.push(dashed('zero-shot', COLORS.zero, baseline.zero_shot));
  return traces;
}

function metricTraces(d, best) {
  const traces = [
    line(plan ? plan.metric : 'metric', COLORS.metric, d.evals.x, d.evals.value, {mode: 'lines+markers', marker: {size: 6}}),
    star(best ? [best.x] : [], best ? [best.value] : [], COLORS.metric),
  ];
  if (baseline && baseline.majority !== null) traces.push(dashed('majority', COLORS.majority, baseline.majority));
  if (baseline && baseline.zero_shot !== null) traces.push(dashed('zero-shot', COLORS.zero, baseline.zero_shot));
  return traces;
}

function drawAll(d) {
  smooth = null; points = d.steps.x.length;
  const best = bestOf(d.evals);
  q('.lp-panel-metric').hidden = isLoss();
  q('.lp-metric-title').textContent = plan ? plan.metric[0].toUpperCase() + plan.metric.slice(1) + ' on validation' : 'Validation';
  Plotly.react(q('.lp-loss'), lossTraces(d, best), layout({rangemode: 'tozero'}), config);
  if (!isLoss()) Plotly.react(q('.lp-metric'), metricTraces(d, best), layout({range: [0, 1.03]}), config);
  ready = true;
}

function extend(d) {
  const loss = q('.lp-loss'), metric = q('.lp-metric'), best = bestOf(d.evals);
  points += d.steps.x.length;
  const fresh = smoothed(d.steps.loss);
  if (d.steps.x.length || d.evals.x.length)
    Plotly.extendTraces(loss, {x: [d.steps.x, d.steps.x, d.evals.x], y: [d.steps.loss, fresh, d.evals.loss]}, [0, 1, 2]);
  if (best) Plotly.restyle(loss, {x: [[best.x]], y: [[best.loss]]}, [3]);
  if (isLoss() || !d.evals.x.length) return;
  Plotly.extendTraces(metric, {x: [d.evals.x], y: [d.evals.value]}, [0]);
  if (best) Plotly.restyle(metric, {x: [[best.x]], y: [[best.value]]}, [1]);
}

// Steps planned, metric and dashed lines arrive once; a plot drawn before them has to be drawn again in full.
function needsRedraw(d) {
  const planned = d.plan && !plan, compared = d.baseline && !baseline;
  plan = d.plan || plan; baseline = d.baseline || baseline;
  return ready && (planned || compared);
}

function showProgress(d) {
  const p = d.progress, share = p && p.steps ? Math.min(1, p.step / p.steps) : 0;
  q('.lp-bar > div').style.width = (d.state === 'finished' ? 100 : 100 * share) + '%';
  q('.lp-progress').dataset.state = d.state;
  q('.lp-state').textContent = d.state;
  q('.lp-status').textContent = d.status;
  q('.lp-empty').hidden = ready && points > 0;
  q('.lp-empty').textContent = d.done ? 'This run ended before its first step.' : 'The first points appear within seconds.';
}

function cell(row, text, name) {
  const td = row.insertCell(); td.textContent = text; if (name) td.className = name;
}

function showSamples(samples) {
  if (!samples || !samples.length) return;
  const newest = samples[samples.length - 1], body = q('.lp-samples tbody');
  q('.lp-samples').hidden = false;
  q('.lp-samples-step').textContent = newest.step;
  body.replaceChildren();
  for (const sample of newest.rows.slice(0, MOST_SAMPLES)) {
    const row = body.insertRow(), right = sample.predicted === sample.label;
    cell(row, sample.text, 'lp-text'); cell(row, sample.label);
    cell(row, sample.predicted, right ? 'lp-right' : 'lp-wrong');
    cell(row, sample.p === undefined || sample.p === null ? '' : sample.p.toFixed(2));
  }
}

function apply(d) {
  const redraw = needsRedraw(d);
  if (redraw && !d.reset) { cursor = 0; wait = 0; return; }
  if (d.reset || !ready) drawAll(d); else extend(d);
  cursor = points > MOST_POINTS ? 0 : d.cursor; epoch = d.epoch;
  showProgress(d); showSamples(d.samples);
  if (d.state !== state) { state = d.state; if (state !== props.state) moved(); }
}

// A new state changes what can be done with the run: the page's buttons and the strip follow.
function moved() {
  trigger('moved', {run, state});
  window.dispatchEvent(new CustomEvent('ptune:refresh'));
}

// The address leads back to the run that is shown, after a reload and in another browser.
function address(previous) {
  const url = new URL(location);
  if (run) url.searchParams.set('run', run); else if (previous) url.searchParams.delete('run');
  history.replaceState(null, '', url);
}

async function tick() {
  clearTimeout(timer);
  if (busy || !run) return;
  if (document.hidden || !element.offsetParent || !window.Plotly) { timer = setTimeout(tick, 250); return; }
  const mine = generation;
  busy = true;
  try {
    wait = PERIOD;
    const d = await server.poll({run, cursor, epoch, viewer: props.viewer});
    if (mine !== generation) return;
    if (d.error) { q('.lp-status').textContent = d.error; ended = true; } else { apply(d); ended = d.done && d.cursor === cursor; }
    element.dataset.updates = Number(element.dataset.updates || 0) + 1;
  } catch (problem) {
    wait = Math.min(SLOWEST, 2 * wait);
    q('.lp-status').textContent = 'Connection lost; training goes on. Reconnecting…';
  } finally {
    busy = false;
    if (mine !== generation) tick(); else if (!ended) timer = setTimeout(tick, wait);
  }
}

function start() {
  const previous = run;
  generation++; run = props.value || null; address(previous); cursor = 0; epoch = 0; ready = false; ended = false; state = null;
  points = 0; plan = null; baseline = null; wait = PERIOD; element.dataset.updates = 0;
  element.classList.toggle('lp-idle', !run);
  q('.lp-samples').hidden = true;
  tick();
}

function resize() { for (const plot of element.querySelectorAll('.js-plotly-plot')) if (plot.offsetParent) Plotly.Plots.resize(plot); }

watch('value', () => { if ((props.value || null) !== run) start(); });
watch('state', () => { if (ended && props.state !== state) { ended = false; tick(); } });       // resumed
document.addEventListener('visibilitychange', tick);
new ResizeObserver(resize).observe(element);
// Dotted keys: a whole 'xaxis' object would reset the zoom.
new MutationObserver(() => { for (const plot of element.querySelectorAll('.js-plotly-plot')) Plotly.relayout(plot, axisColors()); })
  .observe(document.body, {attributes: true, attributeFilter: ['class']});
start();
