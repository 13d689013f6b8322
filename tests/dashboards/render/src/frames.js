// Answers of Prometheus and of the store as Grafana's data frames, configured as the panel's JSON says.
import { createTheme, FieldType, getDisplayProcessor, toDataFrame } from '@grafana/data';

export const theme = createTheme({ colors: { mode: 'dark' } });
export const timeZone = 'utc';

/** `{{label}}` in a legend, filled in; `__auto` and no label: the metric itself. */
function nameOf(legend, metric) {
  if (legend !== '__auto') {
    return legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? '');
  }
  const labels = Object.entries(metric).filter(([label]) => label !== '__name__');
  return labels.length ? labels.map(([label, value]) => `${label}="${value}"`).join(', ') : 'value';
}

/** The panel's defaults and what its overrides add for a column of this name. */
function configOf(panel, name, seriesIndex) {
  const config = structuredClone(panel.fieldConfig?.defaults ?? {});
  config.thresholds?.steps.forEach((step) => (step.value ??= -Infinity));
  for (const override of panel.fieldConfig?.overrides ?? []) {
    if (override.matcher.id === 'byName' && override.matcher.options === name) {
      for (const { id, value } of override.properties) {
        const [part, of] = id.split('.');
        if (of) {
          config[part] = { ...config[part], [of]: value };
        } else {
          config[id] = value;
        }
      }
    }
  }
  if (panel.type === 'timeseries') {
    config.custom = { drawStyle: 'line', lineInterpolation: 'linear', axisPlacement: 'auto', ...config.custom };
  }
  return { ...config, displayName: name, displayNameFromDS: name, seriesIndex };
}

function finish(field, panel, seriesIndex = 0) {
  field.config = configOf(panel, field.name, seriesIndex);
  field.state = { seriesIndex, displayName: field.name };
  field.display = getDisplayProcessor({ field, theme, timeZone });
  return field;
}

/** One frame for each series, time and value. Prometheus says what is no number in words. */
export function seriesOf({ panel, answers }) {
  const found = answers.flatMap(({ legend, series }) =>
    series.map(({ metric, values }) => ({ name: nameOf(legend, metric), metric, values })),
  );
  return found.map(({ name, metric, values }, n) => {
    const frame = toDataFrame({
      name,
      fields: [
        { name: 'Time', type: FieldType.time, values: values.map(([at]) => at * 1000) },
        { name, type: FieldType.number, labels: metric, values: values.map(([, value]) => (isFinite(value) ? Number(value) : null)) },
      ],
    });
    frame.fields[0].config = {};
    frame.fields[0].display = getDisplayProcessor({ field: frame.fields[0], theme, timeZone });
    finish(frame.fields[1], panel, n);
    return frame;
  });
}

/** The store's rows as one frame. */
export function tableOf({ panel, answers: [{ columns, rows }] }) {
  const isTime = (name) => ['time', 'started', 'answered', 'first audio', 'ended'].includes(name);
  const fields = columns.map((name, column) => {
    const values = rows.map((row) => row[column]);
    const number = values.some((value) => typeof value === 'number') && values.every((value) => value === null || typeof value === 'number');
    return { name, values, type: isTime(name) ? FieldType.time : number ? FieldType.number : FieldType.string };
  });
  const frame = toDataFrame({ fields });
  frame.fields.forEach((field) => finish(field, panel));
  return frame;
}
