// A heatmap of a histogram's buckets. Grafana's own lives in its server's code, not in @grafana/ui: this one draws the same cells on
// the same plot component, with the panel's own colours, scale and units.
import { dateTimeFormat, getValueFormat } from '@grafana/data';
import { UPlotChart, UPlotConfigBuilder } from '@grafana/ui';
import { theme, timeZone } from './frames';

const SCHEMES = { Reds: ['#2a1315', '#fb6a4a', '#fff5f0'], Greens: ['#0d2415', '#41ab5d', '#f7fcf5'] };

function mix(from, to, share) {
  const parts = [1, 3, 5].map((at) => [from, to].map((colour) => parseInt(colour.slice(at, at + 2), 16)));
  return `rgb(${parts.map(([a, b]) => Math.round(a + (b - a) * share)).join(',')})`;
}

/** Cumulative series as rows of counts, the lowest bucket first. */
function bucketsOf(series) {
  const edges = series.map(({ metric, values }) => ({ le: metric.le === '+Inf' ? Infinity : Number(metric.le), values }));
  edges.sort((a, b) => a.le - b.le);
  const times = [...new Set(edges.flatMap(({ values }) => values.map(([at]) => at)))].sort((a, b) => a - b);
  const before = new Map();
  const rows = edges.map(({ le, values }) => ({
    le,
    counts: values.map(([at, value]) => {
      const count = Number(value) - (before.get(at) ?? 0);
      before.set(at, Number(value));
      return [at, count];
    }),
  }));
  return { times, rows };
}

export function Heatmap({ panel, answers, from, to, width, height }) {
  const { times, rows } = bucketsOf(answers[0].series);
  const { color, cellGap, filterValues, yAxis } = panel.options;
  const step = times.length > 1 ? times[1] - times[0] : 1;
  const most = Math.max(0, ...rows.flatMap(({ counts }) => counts.map(([, count]) => count)));
  const scheme = SCHEMES[color.scheme];
  const colourOf = (count) => {
    const share = Math.round((count / most) ** color.exponent * color.steps) / color.steps;
    return share < 0.5 ? mix(scheme[0], scheme[1], share * 2) : mix(scheme[1], scheme[2], (share - 0.5) * 2);
  };
  const format = getValueFormat(yAxis.unit);
  const label = (edge) => {
    const { text, suffix = '' } = edge === Infinity ? { text: '+Inf' } : format(edge);
    return `${text}${suffix}`;
  };
  const every = Math.max(1, Math.ceil(rows.length / Math.max(2, height / 34)));

  const builder = new UPlotConfigBuilder(timeZone);
  builder.addScale({ scaleKey: 'x', isTime: true, orientation: 0, direction: 1, range: () => [from * 1000, to * 1000] });
  builder.addScale({ scaleKey: 'y', isTime: false, orientation: 1, direction: 1, range: () => [0, rows.length] });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: 'bottom', timeZone, theme });
  builder.addAxis({
    scaleKey: 'y',
    placement: 'left',
    size: yAxis.axisWidth,
    theme,
    splits: () => rows.map((_, n) => n + 1).filter((n) => (rows.length - n) % every === 0),
    values: (_, splits) => splits.map((n) => label(rows[n - 1].le)),
  });
  builder.addSeries({ scaleKey: 'y', pathBuilder: () => null, pointsBuilder: () => false, theme, facets: undefined });
  builder.addHook('draw', (u) => {
    const gap = cellGap * devicePixelRatio;
    rows.forEach(({ counts }, n) => {
      const top = u.valToPos(n + 1, 'y', true);
      const tall = u.valToPos(n, 'y', true) - top;
      for (const [at, count] of counts) {
        if (count > filterValues.le) {
          const left = u.valToPos((at - step) * 1000, 'x', true);
          u.ctx.fillStyle = colourOf(count);
          const wide = u.valToPos(at * 1000, 'x', true) - left;
          u.ctx.fillRect(Math.max(left, u.bbox.left), top, wide - gap, tall - gap);
        }
      }
    });
  });
  const data = [times.map((at) => at * 1000), times.map(() => null)];
  const timeRange = { from: { valueOf: () => from * 1000 }, to: { valueOf: () => to * 1000 } };
  if (most <= 0) {
    return <Nothing words={`Nothing between ${dateTimeFormat(from * 1000, { timeZone })} and ${dateTimeFormat(to * 1000, { timeZone })}`} />;
  }
  return <UPlotChart config={builder} data={data} width={width} height={height} timeRange={timeRange} />;
}

function Nothing({ words }) {
  return <div style={{ display: 'grid', placeItems: 'center', height: '100%', color: theme.colors.text.secondary }}>{words}</div>;
}
