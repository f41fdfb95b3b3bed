#!/usr/bin/env python3
"""Train the networks of `triune bench accuracy` on Fashion-MNIST.

Two networks, each a few hundred kilobytes: `fashion_mobilenet_v2` (inverted
residuals, depthwise convolutions, ReLU6, linear bottlenecks) and
`fashion_resnet` (basic blocks with projections). Each is trained in fp32, its
batch norms are folded, and the folded network is fine-tuned with fake
quantisation: int8 weights, symmetric per output channel (-127..127), and
activations of 8 bits per tensor, without sign where a ReLU made them. The loss
is that of the labels or, half of it, the distance to the fp32 network's answers
(distillation). Four ONNX files come out:

    fashion_mobilenet_v2.onnx  fashion_mobilenet_v2_qat.onnx
    fashion_resnet.onnx        fashion_resnet_qat.onnx

The _qat files are in QDQ form: int8 weights behind DequantizeLinear, and
QuantizeLinear/DequantizeLinear pairs around every activation. The input of all
of them is x[N,1,28,28], pixels divided by 255, no further normalisation: so
uint8 at a scale of 1/255 holds the input without loss.

Which images decide what:

    training     55,000 of the 60,000 training images   gradients, batch norm, ranges
    validation    5,000 of them (SPLIT_SEED)             every choice
    test         10,000                                  none: read once, at the end

Both choices are made by the validation accuracy after each epoch: the epoch whose
parameters are kept, of the fp32 network and of each fine-tuning, and the recipe of
fine-tuning, of RECIPES. Epochs and rates are constants below.

Needs Debian's python3-torch, python3-onnx, python3-numpy and
dataset-fashion-mnist. The committed files were made by

    python3 bench/accuracy/train/train.py --work DIR

on Debian 12 (one thread; the seeds fix the result for one build of torch on one
kind of processor). After each epoch it leaves a checkpoint in the folder --work:
called again it goes on from there, to the same result. At the end it writes the four
files and provenance.json beside them: this script's hash, seeds, versions, date,
the validation accuracy of every epoch, what was chosen, and the accuracy on the
test images, which `triune bench accuracy` measures on the files.
"""
import argparse, copy, datetime, gzip, hashlib, json, os, platform, struct, time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DATA = "/usr/share/datasets/fashion-mnist"

VALIDATION, SPLIT_SEED = 5000, 5  # images held out of training, and the shuffle that picks them
SEED, EPOCHS, RATE = 1, 10, 0.1   # fp32: initial weights and order of images, epochs, peak rate
FINE_SEED, FINE_EPOCHS = 2, 3     # fine-tuning: order of images, epochs
# Fine-tuning recipes: share of the teacher's answers in the loss, peak rate.
RECIPES = [(0.0, 0.005), (0.0, 0.02), (0.5, 0.005), (0.5, 0.02)]


# Data ------------------------------------------------------------------------

def idx(path):
    with gzip.open(path, "rb") as f:
        raw = f.read()
    rank = raw[3]
    shape = struct.unpack(">%dI" % rank, raw[4:4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(data, part):
    x = idx(os.path.join(data, part + "-images-idx3-ubyte.gz"))
    y = idx(os.path.join(data, part + "-labels-idx1-ubyte.gz"))
    return torch.from_numpy(x.astype(np.float32) / 255).unsqueeze(1), torch.from_numpy(y.astype(np.int64))


def batches(x, y, size, rng):
    """Shuffled batches; half the images mirrored, and each batch shifted by up to 2 pixels."""
    order = torch.from_numpy(rng.permutation(len(x)))
    for i in range(0, len(order) - size + 1, size):
        j = order[i:i + size]
        b = x[j]
        b[: size // 2] = b[: size // 2].flip(3)
        dy, dx = rng.integers(0, 5, 2)
        b = F.pad(b, (2, 2, 2, 2))[:, :, dy:dy + 28, dx:dx + 28]
        yield b, y[j]


# Networks: a tree of Conv, Block and Net that trains, folds and exports ----------

class Conv(nn.Module):
    """Convolution, batch norm (until folded) and an optional activation."""

    def __init__(self, name, cin, cout, k=1, stride=1, groups=1, act=None):
        super().__init__()
        self.name, self.act, self.stride, self.pad, self.groups = name, act, stride, k // 2, groups
        self.conv = nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.wq = self.aq = None

    def fold(self):
        s = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        self.conv.weight.data *= s.detach().reshape(-1, 1, 1, 1)
        self.conv.bias = nn.Parameter((self.bn.bias - self.bn.running_mean * s).detach().clone())
        self.bn = None

    def quantise(self):
        self.wq, self.aq = WeightQuant(), ActQuant(signed=self.act is None)

    def forward(self, x):
        w = self.conv.weight if self.wq is None else self.wq(self.conv.weight)
        x = F.conv2d(x, w, self.conv.bias, self.stride, self.pad, groups=self.groups)
        if self.bn is not None:
            x = self.bn(x)
        if self.act == "relu":
            x = F.relu(x)
        elif self.act == "relu6":
            x = F.relu6(x)
        return x if self.aq is None else self.aq(x)

    def emit(self, o, x):
        x = o.conv(self.name, x, self.conv.weight, self.conv.bias, self.stride, self.pad, self.groups, self.wq)
        x = o.act(self.name, x, self.act)
        return o.qdq(self.name, x, self.aq)


class Block(nn.Module):
    """A chain of convolutions with a sum around it: identity, projection or none."""

    def __init__(self, name, body, shortcut=None, residual=False, act=None):
        super().__init__()
        self.name, self.body, self.residual, self.act = name, nn.ModuleList(body), residual, act
        self.shortcut = shortcut
        self.aq = None

    def quantise(self):
        if self.residual:
            self.aq = ActQuant(signed=self.act is None)

    def forward(self, x):
        y = x
        for m in self.body:
            y = m(y)
        if not self.residual:
            return y
        y = y + (x if self.shortcut is None else self.shortcut(x))
        if self.act == "relu":
            y = F.relu(y)
        return y if self.aq is None else self.aq(y)

    def emit(self, o, x):
        y = x
        for m in self.body:
            y = m.emit(o, y)
        if not self.residual:
            return y
        y = o.add(self.name, y, x if self.shortcut is None else self.shortcut.emit(o, x))
        return o.qdq(self.name, o.act(self.name, y, self.act), self.aq)


class Net(nn.Module):
    def __init__(self, name, body, features):
        super().__init__()
        self.name, self.body = name, nn.ModuleList(body)
        self.fc = nn.Linear(features, 10)
        self.inq = self.poolq = self.wq = None

    def quantise(self):
        self.inq = ActQuant(signed=False)
        self.inq.fixed = 1.0
        self.poolq, self.wq = ActQuant(signed=False), WeightQuant()

    def forward(self, x):
        if self.inq is not None:
            x = self.inq(x)
        for m in self.body:
            x = m(x)
        x = x.mean((2, 3))
        if self.inq is None:
            return self.fc(x)
        return F.linear(self.poolq(x), self.wq(self.fc.weight), self.fc.bias)

    def emit(self, o):
        x = o.qdq("input", "x", self.inq)
        for m in self.body:
            x = m.emit(o, x)
        x = o.qdq("pool", o.pool(x), self.poolq)
        o.gemm(x, self.fc.weight, self.fc.bias, self.wq)


def mobilenet_v2():
    def inverted(name, cin, cout, t, stride):
        mid = cin * t
        body = [] if t == 1 else [Conv(name + ".expand", cin, mid, act="relu6")]
        body += [Conv(name + ".depthwise", mid, mid, 3, stride, groups=mid, act="relu6"),
                 Conv(name + ".project", mid, cout)]
        return Block(name, body, residual=stride == 1 and cin == cout)

    # (expansion, channels, stride) of each block; 14x14 after the stem.
    blocks = [(1, 16, 1), (3, 24, 1), (4, 32, 2), (4, 32, 1), (4, 64, 2), (4, 64, 1)]
    body, cin = [Conv("stem", 1, 16, 3, 2, act="relu6")], 16
    for i, (t, c, s) in enumerate(blocks):
        body.append(inverted("block%d" % (i + 1), cin, c, t, s))
        cin = c
    body.append(Conv("head", cin, 192, act="relu6"))
    return Net("fashion_mobilenet_v2", body, 192)


def resnet():
    def basic(name, cin, cout, stride):
        short = None if stride == 1 and cin == cout else Conv(name + ".project", cin, cout, 1, stride)
        return Block(name, [Conv(name + ".conv1", cin, cout, 3, stride, act="relu"),
                            Conv(name + ".conv2", cout, cout, 3)], short, True, "relu")

    return Net("fashion_resnet", [Conv("stem", 1, 16, 3, 2, act="relu"),
                                  basic("block1", 16, 16, 1), basic("block2", 16, 32, 2),
                                  basic("block3", 32, 32, 1), basic("block4", 32, 64, 2)], 64)


# Fake quantisation ---------------------------------------------------------------

class Round(torch.autograd.Function):
    """Rounds to even; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, g):
        return g


class WeightQuant(nn.Module):
    def scale(self, w):
        m = w.detach().abs().flatten(1).max(1).values
        return torch.where(m > 0, m / 127, torch.ones_like(m))

    def forward(self, w):
        s = self.scale(w).reshape([-1] + [1] * (w.dim() - 1))
        return Round.apply(w / s) * s


class ActQuant(nn.Module):
    """8 bits per tensor: 0..255, or -127..127 with sign. The range is a moving
    average of each batch's largest magnitude, frozen in the last epoch."""

    def __init__(self, signed):
        super().__init__()
        self.signed, self.fixed, self.frozen = signed, None, False
        self.register_buffer("top", torch.zeros(()))

    def scale(self):
        top = self.fixed if self.fixed is not None else float(self.top)
        return max(top, 1e-6) / (127 if self.signed else 255)

    def forward(self, x):
        if self.training and not self.frozen and self.fixed is None:
            m = x.detach().abs().max()
            self.top = m if float(self.top) == 0 else self.top + 0.02 * (m - self.top)
        lo, hi = (-127, 127) if self.signed else (0, 255)
        return torch.fake_quantize_per_tensor_affine(x, self.scale(), 0, lo, hi)


# Training ------------------------------------------------------------------------

def accuracy(net, x, y):
    net.eval()
    with torch.no_grad():
        right = sum(int((net(x[i:i + 500]).argmax(1) == y[i:i + 500]).sum()) for i in range(0, len(x), 500))
    net.train()
    return 100 * right / len(x)


def save(path, state):
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


def train(net, x, y, vx, vy, epochs, rate, seed, path, teacher=None, share=0.0):
    """Trains a network and leaves it as it was after the epoch with the best
    validation accuracy (of equals, the last); returns the accuracy after each epoch.
    With a teacher it is the fake-quantised student, whose ranges are frozen in the
    last epoch and whose loss is, by the given share, the distance to the teacher's
    answers. The checkpoint at path is taken up and written after each epoch."""
    decay = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() <= 1]
    opt = torch.optim.SGD([{"params": decay, "weight_decay": 3e-4}, {"params": rest}], rate, 0.9, nesterov=True)
    size = 128
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, rate, epochs * (len(x) // size), pct_start=0.2)
    rng = np.random.default_rng(seed)
    key = [digest(__file__), len(x), epochs, rate, seed, share]
    history, best = [], None
    if os.path.exists(path):
        state = torch.load(path)
        if state["key"] != key:
            raise SystemExit("%s is of another run: give another --work folder" % path)
        net.load_state_dict(state["net"])
        opt.load_state_dict(state["opt"])
        sched.load_state_dict(state["sched"])
        rng.bit_generator.state = state["rng"]
        history, best = state["history"], state["best"]
    net.train()
    for e in range(len(history), epochs):
        if teacher is not None and e == epochs - 1:
            for m in net.modules():
                if isinstance(m, ActQuant):
                    m.frozen = True
        wall, cpu, total = time.time(), time.process_time(), 0.0
        for n, (bx, by) in enumerate(batches(x, y, size, rng)):
            out = net(bx)
            loss = F.cross_entropy(out, by)
            if share > 0:
                with torch.no_grad():
                    want = F.softmax(teacher(bx) / 2, 1)
                loss = (1 - share) * loss + share * 4 * F.kl_div(F.log_softmax(out / 2, 1), want, reduction="batchmean")
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            total += loss.item()
        history.append(accuracy(net, vx, vy))
        if history[-1] == max(history):
            best = copy.deepcopy(net.state_dict())
        save(path, {"key": key, "net": net.state_dict(), "opt": opt.state_dict(), "sched": sched.state_dict(),
                    "rng": rng.bit_generator.state, "history": history, "best": best})
        print("%s epoch %d/%d loss %.4f validation %.2f %%, %.0f s (processor %.0f s)" % (
            os.path.basename(path), e + 1, epochs, total / (n + 1), history[-1], time.time() - wall, time.process_time() - cpu), flush=True)
    net.load_state_dict(best)
    return history


def chosen(history):
    """The epoch, from 1, that train left its network at."""
    return max(range(len(history)), key=lambda e: (history[e], e)) + 1


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


# ONNX ----------------------------------------------------------------------------

class Onnx:
    """Collects nodes and constants; names are the modules' own."""

    def __init__(self, name):
        from onnx import helper, numpy_helper, TensorProto
        self.h, self.nh, self.T = helper, numpy_helper, TensorProto
        self.name, self.nodes, self.consts = name, [], []

    def const(self, name, a):
        self.consts.append(self.nh.from_array(np.ascontiguousarray(a), name))
        return name

    def node(self, op, ins, out, **attrs):
        self.nodes.append(self.h.make_node(op, ins, [out], name=out, **attrs))
        return out

    def weight(self, name, w, q):
        w = w.detach()
        if q is None:
            return self.const(name + ".weight", w.numpy())
        s = q.scale(w)
        c = torch.round(w / s.reshape([-1] + [1] * (w.dim() - 1))).clamp(-127, 127)
        ins = [self.const(name + ".weight_codes", c.numpy().astype(np.int8)),
               self.const(name + ".weight_scale", s.numpy()),
               self.const(name + ".weight_zero", np.zeros(len(s), np.int8))]
        return self.node("DequantizeLinear", ins, name + ".weight", axis=0)

    def qdq(self, name, x, q):
        if q is None:
            return x
        s = self.const(name + ".scale", np.float32(q.scale()))
        z = self.const(name + ".zero", np.int8(0) if q.signed else np.uint8(0))
        c = self.node("QuantizeLinear", [x, s, z], name + ".codes")
        return self.node("DequantizeLinear", [c, s, z], name + ".dequantized")

    def conv(self, name, x, w, b, stride, pad, groups, q):
        ins = [x, self.weight(name, w, q), self.const(name + ".bias", b.detach().numpy())]
        return self.node("Conv", ins, name, kernel_shape=list(w.shape[2:]), strides=[stride] * 2, pads=[pad] * 4, group=groups)

    def act(self, name, x, act):
        if act == "relu":
            return self.node("Relu", [x], name + ".relu")
        if act == "relu6":
            if not any(c.name == "six" for c in self.consts):
                self.const("zero", np.float32(0))
                self.const("six", np.float32(6))
            return self.node("Clip", [x, "zero", "six"], name + ".relu6")
        return x

    def add(self, name, a, b):
        return self.node("Add", [a, b], name + ".add")

    def pool(self, x):
        return self.node("Flatten", [self.node("GlobalAveragePool", [x], "pool")], "features", axis=1)

    def gemm(self, x, w, b, q):
        ins = [x, self.weight("fc", w, q), self.const("fc.bias", b.detach().numpy())]
        self.node("Gemm", ins, "logits", transB=1)

    def save(self, path):
        import onnx
        g = self.h.make_graph(self.nodes, self.name,
                              [self.h.make_tensor_value_info("x", self.T.FLOAT, ["N", 1, 28, 28])],
                              [self.h.make_tensor_value_info("logits", self.T.FLOAT, ["N", 10])], self.consts)
        m = self.h.make_model(g, opset_imports=[self.h.make_opsetid("", 13)], producer_name="train.py")
        m.ir_version = 8
        onnx.checker.check_model(m)
        onnx.save(m, path)
        print("%s %d bytes" % (path, os.path.getsize(path)), flush=True)


def export(net, name, folder):
    o = Onnx(name)
    net.emit(o)
    o.save(os.path.join(folder, name + ".onnx"))


def main():
    import onnx
    p = argparse.ArgumentParser(description="train the networks of `triune bench accuracy`")
    p.add_argument("--data", default=DATA)
    p.add_argument("--out", default="bench/accuracy/nets", help="folder of the results")
    p.add_argument("--work", required=True, help="folder of the checkpoints")
    p.add_argument("--limit", type=int, default=0, help="training images (0: all); for a trial")
    a = p.parse_args()
    torch.set_num_threads(1)
    os.makedirs(a.work, exist_ok=True)
    os.makedirs(a.out, exist_ok=True)
    x, y = load(a.data, "train")
    order = torch.from_numpy(np.random.default_rng(SPLIT_SEED).permutation(len(x)))
    vx, vy = x[order[:VALIDATION]], y[order[:VALIDATION]]
    keep = order[VALIDATION:][: a.limit or None]
    x, y = x[keep], y[keep]
    done, facts = [], {}
    for make in (resnet, mobilenet_v2):
        torch.manual_seed(SEED)
        net = make()
        f = facts[net.name] = {"parameters": sum(q.numel() for q in net.parameters())}
        at = os.path.join(a.work, net.name)
        h = train(net, x, y, vx, vy, EPOCHS, RATE, SEED, at + ".fp32")
        net.eval()
        for m in net.modules():
            if isinstance(m, Conv):
                m.fold()
        f["fp32"] = {"validation_by_epoch": h, "chosen_epoch": chosen(h), "validation": accuracy(net, vx, vy)}
        net.eval()
        best = None
        f["fine_tuning"] = []
        for share, rate in RECIPES:
            q = copy.deepcopy(net)
            for m in list(q.modules()):
                if isinstance(m, (Conv, Block, Net)):
                    m.quantise()
            h = train(q, x, y, vx, vy, FINE_EPOCHS, rate, FINE_SEED, "%s.share%g.rate%g" % (at, share, rate), net, share)
            f["fine_tuning"].append({"teacher_share": share, "rate": rate, "validation_by_epoch": h, "chosen_epoch": chosen(h), "chosen": False})
            if best is None or max(h) > best[0]:
                best = max(h), q, f["fine_tuning"][-1]
        best[2]["chosen"] = True
        f["w8a8"] = {"validation": accuracy(best[1], vx, vy)}
        done.append((net, best[1], f))
    # All is chosen: now, and only now, the test images.
    tx, ty = load(a.data, "t10k")
    files = {}
    for net, q, f in done:
        f["fp32"]["test"], f["w8a8"]["test"] = accuracy(net, tx, ty), accuracy(q, tx, ty)
        for part in ("fp32", "w8a8"):
            print("%s %s: validation %.2f %%, test %.2f %%" % (net.name, part, f[part]["validation"], f[part]["test"]), flush=True)
        for n, name in ((net, net.name), (q, net.name + "_qat")):
            export(n, name, a.out)
            files[name + ".onnx"] = digest(os.path.join(a.out, name + ".onnx"))
    facts = {"script_sha256": digest(__file__), "date": datetime.date.today().isoformat(),
             "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "onnx": onnx.__version__},
             "seeds": {"split": SPLIT_SEED, "fp32": SEED, "fine_tuning": FINE_SEED},
             "images": {"training": len(x), "validation": len(vx), "test": len(tx)},
             "networks": facts, "files_sha256": files}
    with open(os.path.join(a.out, "provenance.json"), "w") as f:
        json.dump(facts, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
