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
function configOf(panel, name, seriesIndex, values) {
  const config = structuredClone(panel.fieldConfig?.defaults ?? {});
  for (const override of panel.fieldConfig?.overrides ?? []) {
    const isAllZero = override.matcher.id === 'byValue' && values?.every((value) => !value);
    if ((override.matcher.id === 'byName' && override.matcher.options === name) || isAllZero) {
      for (const { id, value } of override.properties) {
        if (id === 'links') {
          continue; // a picture has none
        }
        const [part, of] = id.split('.');
        if (of) {
          config[part] = { ...config[part], [of]: value };
        } else {
          config[id] = value;
        }
      }
    }
  }
  config.thresholds?.steps.forEach((step) => (step.value ??= -Infinity));
  if (panel.type === 'timeseries') {
    config.custom = { drawStyle: 'line', lineInterpolation: 'linear', axisPlacement: 'auto', ...config.custom };
  }
  return { ...config, displayName: name, displayNameFromDS: name, seriesIndex };
}

function finish(field, panel, seriesIndex = 0) {
  field.config = configOf(panel, field.name, seriesIndex, field.values);
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

/** Results of several instant queries as columns and rows: joined by their labels, then organized as the panel's JSON says. */
function joined({ panel, answers }) {
  const { renameByName, excludeByName } = panel.transformations.find(({ id }) => id === 'organize').options;
  const joinedRows = new Map();
  answers.forEach(({ series }, n) =>
    series.forEach(({ metric, values: [[, value]] }) => {
      const key = answers.length > 1 ? metric.instance : JSON.stringify(metric);
      const number = isFinite(value) ? Number(value) : null;
      const one = answers.length > 1 ? `Value #${String.fromCharCode(65 + n)}` : 'Value';
      joinedRows.set(key, { ...joinedRows.get(key), ...metric, [one]: number });
    }),
  );
  const names = Object.keys(renameByName).filter((name) => !excludeByName[name]);
  return { columns: names.map((name) => renameByName[name]), rows: [...joinedRows.values()].map((row) => names.map((name) => row[name] ?? null)) };
}

/** The store's rows, or those of instant queries, as one frame. */
export function tableOf(shown) {
  const { panel } = shown;
  const found = panel.datasource.type === 'prometheus' ? joined(shown) : shown.answers[0];
  const isHidden = (name) => panel.fieldConfig.overrides.some(
    ({ matcher, properties }) => matcher.options === name && properties.some(({ id }) => id === 'custom.hidden'),
  );
  const columns = found.columns.filter((name) => !isHidden(name));
  const rows = found.rows.map((row) => row.filter((_, n) => !isHidden(found.columns[n])));
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
