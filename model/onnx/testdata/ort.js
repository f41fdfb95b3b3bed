// node ort.js JOBS.json: runs models in ONNX Runtime. Every job is {model,
// feeds, out}; feeds maps an input's name to {file, shape, type}. Outputs go to
// OUT.<index>.bin; to standard output goes a list, for every job {outputs:
// [{name, type, shape}]} or {error}. NODE_PATH names the folder that has
// onnxruntime-node.
const fs = require('fs');
const ort = require('onnxruntime-node');
const arrays = {float32: Float32Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array,
  int16: Int16Array, uint16: Uint16Array, bool: Uint8Array, float16: Uint16Array};
async function run(job) {
  const s = await ort.InferenceSession.create(job.model, {logSeverityLevel: 4});
  const feeds = {};
  for (const [name, f] of Object.entries(job.feeds)) {
    const b = fs.readFileSync(f.file);
    feeds[name] = new ort.Tensor(f.type, new arrays[f.type](b.buffer.slice(b.byteOffset, b.byteOffset + b.length)), f.shape);
  }
  const res = await s.run(feeds);
  const outputs = s.outputNames.map((name, i) => {
    const t = res[name];
    fs.writeFileSync(`${job.out}.${i}.bin`, Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength));
    return {name, type: t.type, shape: t.dims};
  });
  if (s.release) await s.release();
  return {outputs};
}
(async () => {
  const all = [];
  for (const job of JSON.parse(fs.readFileSync(process.argv[2]))) {
    all.push(await run(job).catch(e => ({error: String(e)})));
  }
  console.log(JSON.stringify(all));
})();
