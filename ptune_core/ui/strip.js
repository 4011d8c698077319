// The strip above the tabs: what the machine does now, for every page. It is also the one who asks for the list of runs
// and hands it to the list (`ptune:runs`), so that a page asks once.
const SLOWEST = 12000;
const q = selector => element.querySelector(selector);
let active = null, wait = props.period, timer = null;

function show(d) {
  if (d.error) throw new Error(d.error);
  active = d.active;
  element.dataset.state = active ? active.state : 'idle';
  q('.st-text').textContent = active ? active.line : d.idle;
  q('.st-waiting').textContent = d.waiting ? `+${d.waiting} waiting` : '';
  q('.st-open').hidden = !active;
  q('.st-stop').hidden = !active || !active.can_stop;
  window.ptuneRuns = d.runs;
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

q('.st-open').addEventListener('click', () => active && trigger('open', {run: active.id}));
q('.st-stop').addEventListener('click', () => active && trigger('halt', {run: active.id}));
watch('viewer', tick);
document.addEventListener('visibilitychange', tick);
window.addEventListener('ptune:refresh', tick);
tick();
