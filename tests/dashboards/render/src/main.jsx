// Every dashboard of `window.SHOWN`, laid out as Grafana lays it out, each panel in an element with the panel's name.
import { useState } from 'react';
import { createRoot } from 'react-dom/client';
import { dateTime, getDisplayProcessor, ThemeContext } from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, TimeSeries } from '@grafana/ui';
import { seriesOf, tableOf, theme, timeZone } from './frames';
import { Heatmap } from './heatmap';

const COLUMNS = 24;
const CELL = 30;
const GAP = 8;

const kinds = {
  timeseries: ({ shown, timeRange, width, height }) => (
    <TimeSeries
      frames={seriesOf(shown)}
      legend={shown.panel.options.legend}
      options={shown.panel.options}
      timeRange={timeRange}
      timeZone={timeZone}
      structureRev={1}
      width={width}
      height={height}
    />
  ),
  stat: ({ shown, width, height }) => {
    const field = seriesOf(shown)[0]?.fields[1];
    const value = field ? field.display(field.values.at(-1)) : { text: 'No data', numeric: NaN, color: theme.colors.text.disabled };
    const { colorMode, graphMode, textMode, justifyMode } = shown.panel.options;
    return <BigValue {...{ value, width, height, theme, colorMode, graphMode, textMode, justifyMode }} />;
  },
  bargauge: ({ shown, width, height }) => {
    const fields = seriesOf(shown).map((frame) => frame.fields[1]);
    const most = Math.max(...fields.map((field) => field.values.at(-1)), 1e-12);
    const high = shown.panel.fieldConfig.defaults.max ?? most;
    const each = Math.min(75, (height - GAP) / fields.length - 4);
    const { displayMode, orientation, valueMode, namePlacement, showUnfilled } = shown.panel.options;
    return fields.map((field) => {
      field.config.max = high;
      const display = getDisplayProcessor({ field, theme, timeZone });
      const value = { ...display(field.values.at(-1)), title: field.name };
      const rest = { displayMode, orientation, namePlacement, showUnfilled, valueDisplayMode: valueMode };
      const alignmentFactors = { title: 'x'.repeat(Math.max(...fields.map(({ name }) => name.length))), text: '0000000' };
      return (
        <div key={field.name} style={{ marginBottom: 4 }}>
          <BarGauge {...{ value, width, height: each, theme, display, alignmentFactors, field: field.config, ...rest }} />
        </div>
      );
    });
  },
  heatmap: ({ shown, width, height, from, to }) => <Heatmap {...shown} {...{ width, height, from, to }} />,
  table: ({ shown, width, height }) => (
    <Table
      data={tableOf(shown)}
      cellHeight={shown.panel.options.cellHeight}
      columnMinWidth={shown.panel.fieldConfig.defaults.custom.minWidth}
      width={width}
      height={height}
    />
  ),
};

function Shown({ shown, from, to, width, height }) {
  const [timeRange] = useState(() => {
    const range = { from: dateTime(from * 1000), to: dateTime(to * 1000) };
    return { ...range, raw: range };
  });
  const Kind = kinds[shown.panel.type];
  return (
    <PanelChrome title={shown.panel.title} width={width} height={height}>
      {(innerWidth, innerHeight) => <Kind {...{ shown, from, to, timeRange, width: innerWidth, height: innerHeight }} />}
    </PanelChrome>
  );
}

function Board({ name, board, panels, from, to, width }) {
  const column = width / COLUMNS;
  const place = ({ x, y, w, h }) => ({
    position: 'absolute',
    left: x * column,
    top: y * (CELL + GAP) + 56,
    width: w * column - GAP,
    height: h * (CELL + GAP) - GAP,
  });
  const rows = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <div id={`board-${name}`} style={{ position: 'relative', width, height: rows * (CELL + GAP) + 64, background: theme.colors.background.canvas }}>
      <h3 style={{ position: 'absolute', left: GAP, top: 12 }}>{board.title}</h3>
      {board.panels.filter(({ type }) => type === 'row').map((row) => (
        <h5 key={row.id} style={{ ...place(row.gridPos), paddingLeft: GAP, paddingTop: 6 }}>{row.title}</h5>
      ))}
      {panels.map((shown) => {
        const at = place(shown.panel.gridPos);
        return (
          <div key={shown.name} id={`panel-${shown.name}`} style={{ ...at, left: at.left + GAP / 2 }}>
            <Shown {...{ shown, from, to, width: at.width, height: at.height }} />
          </div>
        );
      })}
    </div>
  );
}

function Page({ boards, panels, from, to, width }) {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      {Object.entries(boards).map(([name, board]) => (
        <Board key={name} {...{ name, board, from, to, width }} panels={panels.filter((shown) => shown.board === name)} />
      ))}
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById('root')).render(<Page {...window.SHOWN} />);
