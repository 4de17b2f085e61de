"""PyTorch and JAX around our ops and mixers, against our own results and theirs."""

import gc
import weakref

import numpy
import pytest

import mixers
from mixers import ops, samples

NAMES = ("mlp_mixer", "gated_cnn", "hyena", "fourier_karat")


class TestTorch:
    @pytest.fixture(autouse=True)
    def _import(self):
        self.torch = pytest.importorskip("torch")
        from mixers.interop import torch as interop

        self.interop = interop

    def tensors(self, arrays):
        return {n: self.torch.tensor(a, requires_grad=True) for n, a in arrays.items()}

    def test_op_against_torch(self):
        given = self.tensors(samples.op_sample("layer_norm", dtype="float64"))
        theirs = self.tensors({n: t.detach().numpy() for n, t in given.items()})
        y = self.interop.wrap(ops.layer_norm)(**given)
        want = self.torch.nn.functional.layer_norm(theirs["x"], (5,), theirs["scale"], theirs["bias"])
        numpy.testing.assert_allclose(y.detach(), want.detach(), rtol=1e-10)
        for out in (y, want):
            # a broadcast cotangent, as torch makes it
            (out * out).sum().backward()
        for name in given:
            numpy.testing.assert_allclose(given[name].grad, theirs[name].grad, rtol=1e-9, err_msg=name)

    def test_gradcheck(self):
        scan = self.interop.wrap(ops.linear_scan)
        a = self.torch.rand(2, 5, 3, dtype=self.torch.float64, requires_grad=True)
        b = self.torch.randn(2, 5, 3, dtype=self.torch.float64, requires_grad=True)
        with mixers.use_backend("reference"):
            assert self.torch.autograd.gradcheck(scan, (a, b))
            both = lambda a, b: tuple(scan(a, b, return_last_state=True))
            assert self.torch.autograd.gradcheck(both, (a, b))

    @pytest.mark.parametrize("name", NAMES)
    def test_mixer_as_module(self, name):
        mixer, params, (x,) = samples.mixer_sample(name)
        module = self.interop.Module(mixer, params)
        assert sum(p.numel() for p in module.parameters()) == mixer.parameter_count
        assert str(mixer) in repr(module)
        tensor = self.torch.tensor(x, requires_grad=True)
        y = module(tensor)
        want, saved = mixer.forward(params, x)
        numpy.testing.assert_array_equal(y.detach(), want)
        dy = samples.cotangent(want)
        y.backward(self.torch.tensor(dy))
        dparams, dx = mixer.backward(dy, saved)
        numpy.testing.assert_array_equal(tensor.grad, dx)
        for n, parameter in module.named_parameters():
            numpy.testing.assert_array_equal(parameter.grad, dparams[n], err_msg=n)

    def test_model_with_dotted_names_and_an_optimizer(self):
        model = mixers.models.MetaFormer(mixers.create("pool", dim=8), depth=1, patch=4)
        module = self.interop.Module(model)
        assert "blocks__0__mlp__w_in" in module.state_dict()
        optimizer = self.torch.optim.SGD(module.parameters(), lr=0.1)
        x, labels = self.torch.randn(5, 8, 8, 1), self.torch.arange(5)
        losses = []
        for _ in range(5):
            loss = self.torch.nn.functional.cross_entropy(module(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]

    def test_bfloat16_and_strides(self):
        x = self.torch.randn(4, 6).to(self.torch.bfloat16).T.requires_grad_()
        y = self.interop.wrap(ops.relu)(x)
        assert y.dtype == self.torch.bfloat16
        y.sum().backward()
        assert self.torch.equal(x.grad, (x > 0).to(self.torch.bfloat16))

    def test_outputs_without_gradient_and_inputs_that_need_none(self):
        a, b = self.torch.rand(1, 4, 2), self.torch.randn(1, 4, 2, requires_grad=True)
        out = self.interop.wrap(ops.linear_scan)(a, b, return_last_state=True)
        assert out._fields == ("h", "last_state")
        out.last_state.sum().backward()
        assert b.grad.shape == b.shape
        assert a.grad is None

    def test_misuse_raises(self):
        x = self.torch.ones(3, requires_grad=True)
        scaled = x * 2
        y = self.interop.wrap(ops.tanh)(scaled)
        scaled.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
        y = self.interop.wrap(ops.tanh)(x)
        [dx] = self.torch.autograd.grad((y * y).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            dx.sum().backward()

    def test_frozen_parameters_want_no_gradient(self):
        for trainable in (False, True):
            mixer = mixers.create("random_mixing", dim=2, grid=(4,), trainable=trainable)
            [w] = self.interop.Module(mixer).parameters()
            assert w.requires_grad is trainable

    def test_saved_values_are_released(self):
        x = self.torch.ones(3, requires_grad=True)
        y = self.interop.wrap(ops.tanh)(x)
        released = weakref.ref(y.grad_fn)
        y.sum().backward()
        del y
        gc.collect()
        assert released() is None


class TestJax:
    @pytest.fixture(autouse=True)
    def _import(self):
        self.jax = pytest.importorskip("jax")
        from mixers.interop import jax as interop

        self.interop = interop

    def test_op_against_jax(self):
        silu = self.interop.wrap(ops.silu)
        x = self.jax.numpy.linspace(-3, 3, 24, dtype="float32").reshape(2, 12)
        weigh = lambda f: self.jax.value_and_grad(lambda x: (f(x) * x).sum())
        for function in (weigh(silu), self.jax.jit(weigh(silu))):
            y, dx = function(x)
            want, want_dx = weigh(self.jax.nn.silu)(x)
            numpy.testing.assert_allclose(y, want, rtol=1e-5)
            numpy.testing.assert_allclose(dx, want_dx, rtol=1e-4, atol=1e-5)

    def test_several_outputs(self):
        scan = self.interop.wrap(ops.linear_scan, return_last_state=True)
        a, b = (self.jax.numpy.asarray(v) for v in samples.op_sample("linear_scan").values())
        h, last = scan(a, b)
        numpy.testing.assert_array_equal(h[:, -1], last)
        da = self.jax.grad(lambda a: scan(a, b)[1].sum())(a)
        [[_, last_want], saved] = ops.linear_scan.forward(
            numpy.asarray(a), numpy.asarray(b), return_last_state=True
        )
        dout = ops.linear_scan.Outputs(None, numpy.ones_like(last_want))
        numpy.testing.assert_array_equal(da, ops.linear_scan.backward(dout, saved).da)

    @pytest.mark.parametrize("name", NAMES)
    def test_mixer(self, name):
        mixer, params, (x,) = samples.mixer_sample(name)
        call = self.interop.wrap(mixer)
        y, pull = self.jax.vjp(self.jax.jit(call), params, x)
        want, saved = mixer.forward(params, x)
        numpy.testing.assert_array_equal(y, want)
        dy = samples.cotangent(want)
        dparams, dx = pull(dy)
        want_dparams, want_dx = mixer.backward(dy, saved)
        numpy.testing.assert_array_equal(dx, want_dx)
        for n, gradient in want_dparams.items():
            if gradient is not None:
                numpy.testing.assert_array_equal(dparams[n], gradient, err_msg=n)

    def test_vmap_and_optional_arguments(self):
        linear = self.interop.wrap(ops.linear)
        x, w = self.jax.numpy.ones((5, 2, 3)), self.jax.numpy.ones((3, 4))
        y = self.jax.vmap(lambda x: linear(x, w, None))(x)
        numpy.testing.assert_array_equal(y, numpy.full((5, 2, 4), 3.0))
        dw = self.jax.grad(lambda w: linear(x[0], w, None).sum())(w)
        numpy.testing.assert_array_equal(dw, numpy.full((3, 4), 2.0))
