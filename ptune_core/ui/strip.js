// The strip above the tabs: what the machine does now, for every page. It is also the one who asks for the list of runs
// and hands it to the list (`ptune:runs`), so that a page asks once.
const SLOWEST = 12000;
const q = selector => element.querySelector(selector);
let shown = null, wait = props.period, timer = null;

function show(d) {
  if (d.error) throw new Error(d.error);
  const {active, newest} = d, ended = !active && newest && newest.ended ? newest : null;
  shown = active || ended;
  element.dataset.state = active ? active.state : ended && ended.warning ? 'warning' : 'idle';
  const end = ended && (ended.warning.split('. ')[0] || ended.line);           // what to do about it stands in Runs
  q('.st-text').textContent = active ? active.line : ended ? `Ready · ${ended.name} · ${end}` : d.idle;
  q('.st-line').title = d.idle;
  q('.st-waiting').textContent = d.waiting ? `+${d.waiting} waiting` : '';
  q('.st-open').hidden = !shown;
  q('.st-stop').hidden = !active || !active.can_stop;
  window.ptuneRuns = d.runs; window.ptuneNewest = newest; window.ptuneViewer = props.viewer;
  window.dispatchEvent(new CustomEvent('ptune:runs'));
}

async function tick() {
  clearTimeout(timer);
  if (document.hidden) return;                         // `visibilitychange` wakes it up again
  try { show(await server.overview({viewer: props.viewer})); wait = props.period; }
  catch (problem) {
    element.dataset.state = 'lost'; wait = Math.min(SLOWEST, 2 * wait);
    q('.st-text').textContent = 'Connection lost; training goes on. Reconnecting…';
  }
  timer = setTimeout(tick, wait);
}

q('.st-open').addEventListener('click', () => shown && trigger('open', {run: shown.id}));
q('.st-stop').addEventListener('click', () => shown && trigger('halt', {run: shown.id}));
watch('viewer', tick);
document.addEventListener('visibilitychange', tick);
window.addEventListener('ptune:refresh', tick);
tick();
