// What the live plot and the overlay share; it stands before their scripts. Gradio gives `element`, `props`, `server`,
// `trigger` and `watch`. What a person chose (axis, smoothing, zoom, lines switched off) lives here and in Plotly's
// figure, and goes into each drawing anew: it survives updates, another theme and another run.
const SLOWEST = 12000;
const css = name => getComputedStyle(document.body).getPropertyValue(name).trim();
const dark = () => document.body.classList.contains('dark');
const COLORS = {
  light: {train: '#3f5fe0', validation: '#b4500f', metric: '#0b7a65', majority: '#5b677a', zero: '#9333b5',
    few: '#8a6200', probe: '#be2a4b', rate: '#3f5fe0', norm: '#8a6200', tokens: '#4b56c9'},
  dark: {train: '#8ba3ff', validation: '#f0975a', metric: '#2cc5a5', majority: '#a3b0c2', zero: '#d494e8',
    few: '#d9ab3d', probe: '#ff8ba3', rate: '#8ba3ff', norm: '#d9ab3d', tokens: '#9aa5ff'},
};
const color = name => COLORS[dark() ? 'dark' : 'light'][name];
// Plotly reads <b>, <a> and entities in names and hover texts.
const plain = text => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
const short = value => value === null || value === undefined ? '' : String(Number(value.toPrecision(4)));
const capital = text => text.charAt(0).toUpperCase() + text.slice(1);

// On a phone a drag moves the page.
const drag = matchMedia('(pointer: coarse)').matches ? false : 'zoom';
const CONFIG = {
  responsive: true, displaylogo: false, showSendToCloud: false, displayModeBar: false, doubleClick: false,
};

const view = {axis: 'step', smoothing: 0.9, log: false, perUnit: 1};    // perUnit: seconds of a unit of the time axis
const zoom = {};                                             // plot's class -> axis -> the range a person chose
let drawing = 0;

function smoothed(values) {
  let last = null;
  const next = v => last === null ? v : view.smoothing * last + (1 - view.smoothing) * v;
  return values.map(v => v === null ? last : (last = next(v)));
}

// Where points stand on the x axis that was chosen; `of` has steps and seconds.
function across(of, epochsPerStep) {
  if (view.axis === 'epoch') return of.x.map(step => step * (epochsPerStep ?? NaN));
  return view.axis === 'time' ? of.seconds.map(seconds => seconds === null ? null : seconds / view.perUnit) : of.x;
}

// Long runs in minutes, very long ones in hours.
function chooseUnit(lasts) {
  const longest = Math.max(0, ...lasts.map(value => value ?? 0));
  view.perUnit = longest > 18000 ? 3600 : longest > 300 ? 60 : 1;
}

const axisTitle = () => view.axis !== 'time' ? view.axis : {1: 'seconds', 60: 'minutes', 3600: 'hours'}[view.perUnit];

function axisOf(more) {
  return {gridcolor: css('--border-color-primary'), zeroline: false, automargin: true, ...more};
}

function layoutOf(more) {
  const text = css('--body-text-color-subdued');
  return {
    height: 250, margin: {l: 44, r: 12, t: 6, b: 36}, hovermode: 'x unified', datarevision: ++drawing, dragmode: drag,
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: {color: text, size: 12, family: css('--font')},
    hoverlabel: {
      bgcolor: css('--background-fill-primary'), bordercolor: css('--border-color-primary'),
      font: {color: css('--body-text-color')},
    },
    legend: {
      orientation: 'h', traceorder: 'normal', x: 0, y: 1.02, yanchor: 'bottom', itemwidth: 30,
      font: {color: css('--body-text-color')},
    },
    xaxis: axisOf({title: {text: axisTitle(), standoff: 6}}), yaxis: axisOf({}), ...more,
  };
}

function draw(name, traces, layout) {
  const plot = q('.' + name), off = new Set((plot.data || []).filter(t => t.visible === 'legendonly').map(t => t.name));
  for (const trace of traces) if (off.has(trace.name)) trace.visible = 'legendonly';
  // A range of another run in which this one has nothing would show an empty plot.
  const seen = zoom[name]?.xaxis, points = traces.flatMap(trace => [...trace.x]);
  if (seen && points.length && !points.some(x => x >= seen[0] && x <= seen[1])) delete zoom[name];
  for (const [axis, range] of Object.entries(zoom[name] || {})) {
    if (layout[axis]) Object.assign(layout[axis], {range, autorange: false});
  }
  Plotly.react(plot, traces, layout, CONFIG);
  if (plot.dataset.heard) return;
  plot.dataset.heard = 'yes';
  plot.on('plotly_relayout', change => {
    for (const axis of ['xaxis', 'yaxis', 'yaxis2']) {
      const isZoomed = Object.keys(change).some(key => key.startsWith(axis + '.range'));
      if (isZoomed) (zoom[name] ??= {})[axis] = [...plot.layout[axis].range];
    }
    showZoom();
  });
  plot.on('plotly_doubleclick', () => { delete zoom[name]; redraw(); });
}

// Names of dashed lines at the right end, each above its line; of lines that lie close, one above the other, so that no
// two names meet. Zooming in moves lines apart and names with them.
const NAME_HEIGHT = 14;
function namesOn(lines, plot, range) {
  const height = q('.' + plot)._fullLayout?.yaxis?._length || 180, perUnit = height / (range[1] - range[0]);
  const placed = lines.map(each => ({...each, at: (each.y - range[0]) * perUnit + NAME_HEIGHT / 2 + 1}));
  placed.sort((a, b) => a.at - b.at);
  placed.forEach((each, i) => { if (i) each.at = Math.max(each.at, placed[i - 1].at + NAME_HEIGHT); });
  for (let i = placed.length - 1, most = height - NAME_HEIGHT / 2; i >= 0; i--, most -= NAME_HEIGHT) {
    placed[i].at = Math.min(placed[i].at, most);
  }
  return placed.map(each => ({
    text: each.text, x: 1, xref: 'paper', xanchor: 'right', y: each.y, yanchor: 'middle', xshift: -9,
    yshift: Math.round(each.at - (each.y - range[0]) * perUnit), showarrow: false, borderpad: 0,
    font: {size: 11, color: color(each.of)}, bgcolor: css('--block-background-fill') + 'e6',
  }));
}

function showZoom() { q('.lp-unzoom').hidden = Object.keys(zoom).length === 0; }
function forget(axis) {
  for (const axes of Object.values(zoom)) delete axes[axis];
  for (const name in zoom) if (!Object.keys(zoom[name]).length) delete zoom[name];
}

function redraw() { showZoom(); drawAll(); }

// Controls: another axis or scale makes the ranges of the old one meaningless.
q('.lp-axis').addEventListener('change', event => { view.axis = event.target.value; forget('xaxis'); redraw(); });
q('.lp-log').addEventListener('change', event => {
  view.log = event.target.checked;
  for (const name of ['lp-loss', 'ov-loss']) if (zoom[name]) delete zoom[name].yaxis;
  redraw();
});
q('.lp-smoothing').addEventListener('change', event => { view.smoothing = Number(event.target.value); redraw(); });
q('.lp-unzoom').addEventListener('click', () => { for (const name in zoom) delete zoom[name]; redraw(); });

const lossAxis = () => axisOf(view.log ? {type: 'log'} : {rangemode: 'tozero'});

// A cell that a spreadsheet would read as a formula begins with an apostrophe instead.
function cellOf(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '';
  if (typeof value === 'number') return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function saveCsv(name, header, rows) {
  const text = [header, ...rows].map(row => row.map(cellOf).join(',')).join('\n') + '\n';
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/csv'})); link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

new ResizeObserver(() => {
  for (const plot of element.querySelectorAll('.js-plotly-plot')) if (plot.offsetParent) Plotly.Plots.resize(plot);
})
  .observe(element);
new MutationObserver(() => { if (q('.js-plotly-plot')) redraw(); })
  .observe(document.body, {attributes: true, attributeFilter: ['class']});
