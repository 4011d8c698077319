// Every piece of visible text whose contrast with what is behind it is below 4.5 (3 for large text), as sentences.
// Code is left out: a filter darkens the editor's colours, which computed styles do not tell.
() => {
  const parse = color => {
    const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    c.clearRect(0, 0, 1, 1);
    c.fillStyle = color;
    c.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = c.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const known = new Map(),
    rgba = color => known.get(color) ?? known.set(color, parse(color)).get(color);
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = node => {
    const layers = [];
    for (let each = node; each; each = each.parentElement) {
      const color = rgba(getComputedStyle(each).backgroundColor);
      if (color[3]) layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const found = new Set(),
    walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(),
      node = walker.currentNode.parentElement;
    if (!text || node.closest('svg, [hidden], script, style, .sr-only, [disabled], [aria-hidden=true], .cm-content'))
      continue;
    if (!node.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const style = getComputedStyle(node),
      ground = behind(node),
      ink = over(rgba(style.color), ground);
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a),
      ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize),
      large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5))
      found.add(
        `${ratio.toFixed(2)} "${text.slice(0, 40)}" ${style.color} on ${ground.slice(0, 3).map(Math.round)} ` +
          `<${node.tagName.toLowerCase()} ${node.className}>`,
      );
  }
  return [...found];
}
