// node ort.js JOBS.json: runs models in ONNX Runtime. Every job is {model,
// feeds, out}; feeds maps an input's name to {file, shape, type}. Outputs go to
// OUT.<index>.bin; their names, types and shapes, a list a job, to standard
// output as JSON. NODE_PATH names the folder that has onnxruntime-node.
const fs = require('fs');
const ort = require('onnxruntime-node');
const arrays = {float32: Float32Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array, bool: Uint8Array, float16: Uint16Array};
(async () => {
  const all = [];
  for (const job of JSON.parse(fs.readFileSync(process.argv[2]))) {
    const s = await ort.InferenceSession.create(job.model);
    const feeds = {};
    for (const [name, f] of Object.entries(job.feeds)) {
      const b = fs.readFileSync(f.file);
      feeds[name] = new ort.Tensor(f.type, new arrays[f.type](b.buffer.slice(b.byteOffset, b.byteOffset + b.length)), f.shape);
    }
    const res = await s.run(feeds);
    all.push(s.outputNames.map((name, i) => {
      const t = res[name];
      fs.writeFileSync(`${job.out}.${i}.bin`, Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength));
      return {name, type: t.type, shape: t.dims};
    }));
    if (s.release) await s.release();
  }
  console.log(JSON.stringify(all));
})().catch(e => { console.error(String(e)); process.exit(1); });
