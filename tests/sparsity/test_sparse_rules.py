from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sparse_nets import NETS, PIXELS, Build, Net, head, more_behind_depth_to_space, separable, wide_classifier

from edgeprune.devices.base import DeviceFacts
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.sparsity.arbiter import choose_encoding
from edgeprune.sparsity.graph import Graph
from edgeprune.sparsity.rewrite import Rewritten, write_sparse
from edgeprune.sparsity.rules import check_sparse


def answers(file: Path, seed: int = 0) -> list[np.ndarray]:
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    image = np.random.default_rng(seed).standard_normal(entry["shape"]).astype(np.float32)
    interpreter.set_tensor(entry["index"], image)
    interpreter.invoke()
    return [interpreter.get_tensor(out["index"]) for out in interpreter.get_output_details()]


@pytest.mark.parametrize("build", NETS, ids=lambda build: build.__name__)
def test_each_net_breaks_the_rules_it_is_made_to_break(build: Build, tmp_path: Path) -> None:
    dense, sparse = tmp_path / "dense.tflite", tmp_path / "sparse.tflite"
    build(dense)
    write_sparse(dense, sparse)
    found = check_sparse(sparse)
    assert {rule.name for rule in found.rules if not rule.holds} == NETS[build]
    assert found.holds == (not NETS[build])
    assert all(name in found.why_not for name in NETS[build])
    assert not check_sparse(dense).holds
    assert "stored" in check_sparse(dense).why_not
    for right, answer in zip(answers(dense), answers(sparse), strict=True):
        np.testing.assert_array_equal(answer, right)  # this machine unpacks the weights and runs the same kernels


def test_a_breach_names_its_operator_and_why(tmp_path: Path) -> None:
    net = Net()
    x = net.depthwise(net.convolution(net.stem(), 32), 7, pad=3)
    x = net.convolution(x, 32, 3, pad=1)
    head(net, x, tmp_path / "net.tflite")
    breaches = {b.operator: b.why for rule in check_sparse(tmp_path / "net.tflite").rules for b in rule.breaches}
    assert breaches["DEPTHWISE_CONV_2D (operator 4)"] == "7x7; there are kernels for 3x3 and 5x5"
    assert breaches["CONV_2D (operator 6)"].startswith("3x3; its stride is 1, not 2; it takes 32 channels, not 3")


@pytest.mark.parametrize("everything", [True, False], ids=["all tensors", "weights alone"])
def test_half_precision_breaks_a_rule(everything: bool, tmp_path: Path) -> None:
    dense, half, out = (tmp_path / f"{name}.tflite" for name in ("dense", "half", "out"))
    separable(dense)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(dense.read_bytes(), 0))
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.FLOAT32 and (everything or data is not None):
            tensor.type = schema.TensorType.FLOAT16
            if data is not None:
                values = np.asarray(data, np.uint8).view(np.float32).astype(np.float16)
                model.buffers[tensor.buffer].data = values.view(np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    half.write_bytes(bytes(builder.Output()))
    assert "does not compute in float32" in check_sparse(half).why_not
    assert write_sparse(half, out).stored == ()


def test_counts_are_those_of_the_1x1_convolutions(tmp_path: Path) -> None:
    separable(tmp_path / "net.tflite")
    found = check_sparse(tmp_path / "net.tflite")
    assert (found.layers, found.weights) == (3, 16 * 16 + 16 * 24 + 24 * 32 + 32 * 5)
    assert 0.7 < found.zeros / found.weights < 0.9


def test_only_what_runs_sparsely_is_counted(tmp_path: Path) -> None:
    more_behind_depth_to_space(tmp_path / "net.tflite")
    found = check_sparse(tmp_path / "net.tflite")
    assert (found.layers, found.weights) == (1, 16 * 32)


def test_a_classifier_is_counted_until_the_rewriter_sets_it_apart(tmp_path: Path) -> None:
    dense, sparse = tmp_path / "dense.tflite", tmp_path / "sparse.tflite"
    wide_classifier(dense)
    (zeros,) = [rule for rule in check_sparse(dense).rules if rule.name == "zeros"]
    assert [b.operator for b in zeros.breaches] == ["FULLY_CONNECTED (operator 4)"]
    assert check_sparse(dense).weights == 16 * 32 + 32 * 100
    assert len(write_sparse(dense, sparse).apart) == 1
    assert check_sparse(sparse).holds
    assert check_sparse(sparse).weights == 16 * 32


def test_the_limit_of_two_thirds_is_exact(tmp_path: Path) -> None:
    """XNNPACK asks for more than two thirds."""
    for zeros, holds in ((64, False), (65, True)):
        net = Net(zeros=0)
        weights = np.ones(96, np.float32)
        weights[:zeros] = 0
        options = schema.Conv2DOptionsT()
        net._window(options, 1, False, 0)
        x = net.graph.add(
            "CONV_2D",
            [net.stem(), net.graph.constant(weights.reshape(6, 1, 1, 16)), net.graph.constant(np.zeros(6, np.float32))],
            (1, 9, 9, 6),
            options,
        )
        net.save(tmp_path / "dense.tflite", net.mean(x))
        write_sparse(tmp_path / "dense.tflite", tmp_path / "sparse.tflite")
        assert check_sparse(tmp_path / "sparse.tflite").holds == holds


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(zeros=st.floats(0, 1), width=st.integers(1, 40), pixels=st.integers(3, 20))
def test_the_rewritten_file_computes_the_same(tmp_path: Path, zeros: float, width: int, pixels: int) -> None:
    net = Net(zeros=zeros, pixels=pixels)
    x = net.convolution(net.image, 16, 3, stride=2, same=True)
    x = net.depthwise(net.convolution(x, width), stride=2, same=True)
    head(net, x, tmp_path / "dense.tflite")
    write_sparse(tmp_path / "dense.tflite", tmp_path / "sparse.tflite", least_zeros=0)
    for right, answer in zip(answers(tmp_path / "dense.tflite"), answers(tmp_path / "sparse.tflite"), strict=True):
        np.testing.assert_array_equal(answer, right)


def test_only_layers_with_enough_zeros_are_stored_sparsely(tmp_path: Path) -> None:
    dense, sparse = tmp_path / "dense.tflite", tmp_path / "sparse.tflite"
    net = Net(zeros=0.9)
    x = net.convolution(net.stem(), 64)
    net._zeros = 0.3
    x = net.convolution(x, 64)
    head(net, x, dense)
    done = write_sparse(dense, sparse, least_zeros=0.5)
    assert done.stored == (2,)
    assert (done.bytes_before, done.bytes_after) == (dense.stat().st_size, sparse.stat().st_size)
    assert done.bytes_after < done.bytes_before
    assert write_sparse(sparse, tmp_path / "again.tflite").stored == ()


def test_weights_that_something_else_reads_stay_dense(tmp_path: Path) -> None:
    """Unpacking is for convolutions: another operator would get what is stored."""
    net = Net()
    weights = net.graph.constant(np.eye(16, dtype=np.float32).reshape(16, 1, 1, 16))
    options, bias = schema.Conv2DOptionsT(), net.graph.constant(np.zeros(16, np.float32))
    net._window(options, 1, False, 0)
    x = net.graph.add("CONV_2D", [net.stem(), weights, bias], (1, 9, 9, 16), options)
    y = net.graph.add("CONV_2D", [x, net.graph.add("ABS", [weights], (16, 1, 1, 16)), bias], (1, 9, 9, 16), options)
    net.save(tmp_path / "dense.tflite", net.mean(y))
    assert write_sparse(tmp_path / "dense.tflite", tmp_path / "sparse.tflite").stored == ()


def test_what_is_no_tflite_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"not a model at all")
    for what in (tmp_path / "x.tflite", tmp_path / "missing.tflite"):
        with pytest.raises(UsageError, match=what.name):
            check_sparse(what)
        with pytest.raises(UsageError, match=what.name):
            write_sparse(what, tmp_path / "out.tflite")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_a_damaged_file_is_refused(kept: float, tmp_path: Path) -> None:
    file = tmp_path / "x.tflite"
    separable(file)
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    for use in (check_sparse, lambda file: write_sparse(file, tmp_path / "out.tflite")):
        with pytest.raises(UsageError, match="damaged") as raised:
            use(file)
        assert str(file) in str(raised.value)


def test_a_pad_of_computed_amounts_is_no_part_of_its_convolution(tmp_path: Path) -> None:
    net = Net()
    amounts = net.graph.input((4, 2))
    x = net.graph.add("PAD", [net.image, amounts], (1, PIXELS + 2, PIXELS + 2, 3), schema.PadOptionsT())
    head(net, net.convolution(x, 16, 3, stride=2), tmp_path / "net.tflite")
    assert "PAD" in check_sparse(tmp_path / "net.tflite").why_not


def test_a_broken_rule_keeps_the_dense_file_and_is_told(tmp_path: Path) -> None:
    net = Net()
    head(net, net.convolution(net.stem(), 16, 3, pad=1), tmp_path / "dense.tflite")
    verdict = choose_encoding(LocalDevice(), tmp_path / "dense.tflite", tmp_path / "sparse.tflite")
    assert (verdict.kept, verdict.ratio) == ("dense", None)
    assert "CONV_2D (operator 3): 3x3" in verdict.why


class WithoutAvx(LocalDevice):
    """This machine, as if XNNPACK's sparse kernels were for it."""

    def facts(self) -> DeviceFacts:
        return super().facts().model_copy(update={"cpu_features": ()})


def test_a_sparse_file_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    separable(tmp_path / "dense.tflite")

    def write_another(source: Path, target: Path) -> Rewritten:
        written = write_sparse(source, target)
        graph = Graph(target)
        stem = next(operator for operator in graph.operators if operator.name == "CONV_2D")
        bias = graph.model.buffers[graph.model.subgraphs[0].tensors[stem.constants[1]].buffer]
        bias.data = np.frombuffer((graph.value(stem.constants[1]) + np.float32(0.5)).tobytes(), np.uint8)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(graph.model.Pack(builder), b"TFL3")
        target.write_bytes(bytes(builder.Output()))
        return written

    monkeypatch.setattr("edgeprune.sparsity.arbiter.write_sparse", write_another)
    verdict = choose_encoding(WithoutAvx(), tmp_path / "dense.tflite", tmp_path / "sparse.tflite", protocol="probe")
    assert verdict.check.holds
    assert (verdict.kept, verdict.ratio) == ("dense", None)
    assert "the answers differ" in verdict.why


@pytest.mark.skipif("avx" not in LocalDevice().facts().cpu_features, reason="of x86 with AVX")
def test_x86_with_avx_keeps_the_dense_file(tmp_path: Path) -> None:
    separable(tmp_path / "dense.tflite")
    verdict = choose_encoding(LocalDevice(), tmp_path / "dense.tflite", tmp_path / "sparse.tflite")
    assert (verdict.kept, verdict.ratio) == ("dense", None)
    assert "AVX" in verdict.why
