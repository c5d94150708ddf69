// What duckdb-browser.mjs imports of apache-arrow, taken from its bundled script (duckdb/arrow.js).
const { RecordBatchReader, Table, Type, tableToIPC } = globalThis.Arrow;
export { RecordBatchReader, Table, Type, tableToIPC };
