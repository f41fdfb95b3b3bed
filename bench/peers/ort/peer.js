// ONNX Runtime as a peer of `triune bench host`: loads an ONNX file, runs it
// when told to, and answers in lines of JSON. Arguments: MODEL.onnx SCHEME
// THREADS. With TRIUNE_ORT_DUMP=FILE it only writes the optimised model there,
// to see what ONNX Runtime really fused, and ends.
'use strict';
const fs = require('fs');
const path = require('path');
const readline = require('readline');
const ort = require('onnxruntime-node');

const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');

// seeded returns values in [-1, 1) that are the same on every run.
function seeded(n) {
  const out = new Float32Array(n);
  let s = 1;
  for (let i = 0; i < n; i++) {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    out[i] = s / 2147483648 - 1;
  }
  return out;
}

// peakRSS returns the greatest resident size of this process in bytes. What
// getrusage says also covers the process that started this one, up to exec.
function peakRSS() {
  try {
    return 1024 * Number(/^VmHWM:\s*(\d+) kB/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]);
  } catch {
    return process.resourceUsage().maxRSS * 1024;
  }
}

const arrays = {
  float32: (n) => seeded(n), float64: (n) => Float64Array.from(seeded(n)),
  int64: (n) => new BigInt64Array(n), int32: (n) => new Int32Array(n),
  uint8: (n) => new Uint8Array(n), int8: (n) => new Int8Array(n), bool: (n) => new Uint8Array(n),
};

async function main() {
  const [model, , threads] = process.argv.slice(2);
  const start = process.hrtime.bigint();
  const options = {
    executionProviders: ['cpu'], graphOptimizationLevel: 'all', executionMode: 'sequential',
    intraOpNumThreads: Number(threads), interOpNumThreads: 1,
  };
  const dump = process.env.TRIUNE_ORT_DUMP;
  // The file is as good as this machine only, which ONNX Runtime warns of.
  if (dump) Object.assign(options, { optimizedModelFilePath: dump, logSeverityLevel: 3 });
  const session = await ort.InferenceSession.create(model, options);
  if (dump) return say({ optimized: dump });
  const feeds = {};
  for (const m of session.inputMetadata) {
    const dims = m.shape.map((d) => (typeof d === 'number' && d > 0 ? d : 1));
    const make = arrays[m.type];
    if (!make) throw new Error(`input ${m.name} of type ${m.type} is not supported`);
    feeds[m.name] = new ort.Tensor(m.type, make(dims.reduce((a, b) => a * b, 1)), dims);
  }
  await session.run(feeds);
  const version = require(path.join(path.dirname(require.resolve('onnxruntime-node')), '..', 'package.json')).version;
  say({ version, load_ms: Number(process.hrtime.bigint() - start) / 1e6 });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line === 'quit') {
      say({ peak_rss_bytes: peakRSS() });
      return;
    }
    if (line !== 'run') throw new Error(`unknown request ${line}`);
    const t = process.hrtime.bigint();
    await session.run(feeds);
    say({ ms: Number(process.hrtime.bigint() - t) / 1e6 });
  }
}

main().catch((e) => {
  say({ error: String(e.message || e).split('\n')[0] });
  process.exitCode = 1;
});
