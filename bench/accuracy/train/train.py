#!/usr/bin/env python3
"""Train the networks of `triune bench accuracy` on Fashion-MNIST.

Two networks, each a few hundred kilobytes: `fashion_mobilenet_v2` (inverted
residuals, depthwise convolutions, ReLU6, linear bottlenecks) and
`fashion_resnet` (basic blocks with projections). Each is trained in fp32, its
batch norms are folded, and the folded network is fine-tuned with fake
quantisation: int8 weights, symmetric per output channel (-127..127), and
activations of 8 bits per tensor, without sign where a ReLU made them. The loss is
half the labels' and half the fp32 network's answers (distillation). Four ONNX
files come out:

    fashion_mobilenet_v2.onnx  fashion_mobilenet_v2_qat.onnx
    fashion_resnet.onnx        fashion_resnet_qat.onnx

The _qat files are in QDQ form: int8 weights behind DequantizeLinear, and
QuantizeLinear/DequantizeLinear pairs around every activation. The input of all
of them is x[N,1,28,28], pixels divided by 255, no further normalisation: so
uint8 at a scale of 1/255 holds the input without loss.

Needs Debian's python3-torch, python3-onnx, python3-numpy and
dataset-fashion-mnist. The committed files were made by

    python3 bench/accuracy/train/train.py --out bench/accuracy/nets

on Debian 12 (torch 1.13, one thread; the seed fixes the result for one build of
torch). It prints the accuracy of fp32 and of the fake-quantised network on the
10,000 test images; `triune bench accuracy` measures the same on the files. The
test images take no part in training. --fine-tune takes the fp32 networks from the
files of an earlier run and gives the same _qat files as a whole run does.
"""
import argparse, copy, gzip, os, struct, time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DATA = "/usr/share/datasets/fashion-mnist"


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


def train(net, x, y, epochs, rate, rng, teacher=None):
    """Trains a network; with a teacher, as its fake-quantised student, whose
    ranges are frozen in the last epoch."""
    decay = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() <= 1]
    opt = torch.optim.SGD([{"params": decay, "weight_decay": 3e-4}, {"params": rest}], rate, 0.9, nesterov=True)
    size = 128
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, rate, epochs * (len(x) // size), pct_start=0.2)
    net.train()
    for e in range(epochs):
        if teacher is not None and e == epochs - 1:
            for m in net.modules():
                if isinstance(m, ActQuant):
                    m.frozen = True
        start, total = time.time(), 0.0
        for n, (bx, by) in enumerate(batches(x, y, size, rng)):
            out = net(bx)
            loss = F.cross_entropy(out, by)
            if teacher is not None:
                with torch.no_grad():
                    want = F.softmax(teacher(bx) / 2, 1)
                loss = (loss + 4 * F.kl_div(F.log_softmax(out / 2, 1), want, reduction="batchmean")) / 2
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            total += loss.item()
        print("%s epoch %d/%d loss %.4f %.0f s" % (net.name, e + 1, epochs, total / (n + 1), time.time() - start), flush=True)


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


def restore(net, path):
    """Sets a folded network's parameters to those of an exported file."""
    import onnx
    from onnx import numpy_helper
    have = {c.name: torch.from_numpy(numpy_helper.to_array(c).copy()) for c in onnx.load(path).graph.initializer}
    for m in net.modules():
        if isinstance(m, Conv):
            m.conv.weight.data, m.conv.bias.data = have[m.name + ".weight"], have[m.name + ".bias"]
    net.fc.weight.data, net.fc.bias.data = have["fc.weight"], have["fc.bias"]


def export(net, name, path):
    o = Onnx(name)
    net.emit(o)
    o.save(path)


def main():
    p = argparse.ArgumentParser(description="train the networks of `triune bench accuracy`")
    p.add_argument("--data", default=DATA)
    p.add_argument("--out", default="bench/accuracy/nets")
    p.add_argument("--net", default="resnet,mobilenet_v2", help="networks, comma separated")
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--qat-epochs", type=int, default=3)
    p.add_argument("--fine-tune", action="store_true", help="only fine-tune, from the fp32 files in --out")
    p.add_argument("--limit", type=int, default=0, help="training images (0: all); for a trial")
    a = p.parse_args()
    torch.set_num_threads(1)
    x, y = load(a.data, "train")
    tx, ty = load(a.data, "t10k")
    if a.limit:
        x, y = x[:a.limit], y[:a.limit]
    os.makedirs(a.out, exist_ok=True)
    for name in a.net.split(","):
        torch.manual_seed(1)
        rng = np.random.default_rng(1)
        net = {"resnet": resnet, "mobilenet_v2": mobilenet_v2}[name]()
        print("%s: %d parameters" % (net.name, sum(q.numel() for q in net.parameters())), flush=True)
        path = os.path.join(a.out, net.name + ".onnx")
        if not a.fine_tune:
            train(net, x, y, a.epochs, 0.1, rng)
        net.eval()
        for m in net.modules():
            if isinstance(m, Conv):
                m.fold()
        if a.fine_tune:
            restore(net, path)
        print("%s fp32: %.2f %%" % (net.name, accuracy(net, tx, ty)), flush=True)
        net.eval()
        if not a.fine_tune:
            export(net, net.name, path)
        rng = np.random.default_rng(2)
        q = copy.deepcopy(net)
        for m in list(q.modules()):
            if isinstance(m, (Conv, Block, Net)):
                m.quantise()
        train(q, x, y, a.qat_epochs, 0.005, rng, teacher=net)
        print("%s fake-quantised: %.2f %%" % (net.name, accuracy(q, tx, ty)), flush=True)
        export(q, net.name + "_qat", os.path.join(a.out, net.name + "_qat.onnx"))


if __name__ == "__main__":
    main()
