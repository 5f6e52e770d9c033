"""Everything that TensorFlow, Keras and TensorLayer do not promise and that is relied on here.

Names with an underscore and modules below `tensorflow.python` may change with any release. So
may what a public name does beyond its documentation. Nothing outside this module depends on
either, and what does is checked (common/compiled.py) before it is believed.
"""

import numpy as np
import tensorflow as tf


def caller(function):
    """A function of a list of tensors that runs a concrete function; returns its flat results.

    Relied on: `call_function` of the eager context. It takes 20 us, the public call 90.
    """
    from tensorflow.python.eager import context

    call, name, outside = context.context().call_function, function.name, function.captured_inputs
    n_outputs = len(function.structured_outputs)

    def run(tensors, _alive=function):  # the context forgets a function that nobody holds
        return call(name, [*tensors, *outside], n_outputs)

    return run


def hold(variable, owner):
    """From now on, whoever touches the variable asks its owner first.

    While owner.traced is a dict, it has the value of each variable, by its id: a tensor of the
    graph that is being traced, which reading returns and assigning replaces. At any other time,
    touching the variable calls owner.unpack().

    Relied on: everything TensorFlow does with a variable, in Python and in C++, goes through
    its attribute `_handle`, and in a graph through the methods here; its class may be exchanged
    for a subclass; a tape watches a tensor that stands for the handle.
    """
    from tensorflow.python.eager import tape

    if any(vars(kind).get("held_by") is owner for kind in type(variable).__mro__):
        return

    class Variable(type(variable)):
        held_by = owner

        @property
        def _handle(self):
            if owner.traced is not None:
                return owner.traced[id(self)]
            owner.unpack()
            return self.__dict__["_handle"]

        @_handle.setter
        def _handle(self, handle):
            self.__dict__["_handle"] = handle

        def _read_variable_op(self, *args, **kwargs):
            if owner.traced is None:
                return super()._read_variable_op(*args, **kwargs)
            if self.trainable:
                tape.variable_accessed(self)
            return tf.identity(self._handle)

        def assign(self, value, *args, **kwargs):
            if owner.traced is None:
                return super().assign(value, *args, **kwargs)
            value = tf.convert_to_tensor(value, self.dtype)
            value.shape.assert_is_compatible_with(self.shape)
            owner.traced[id(self)] = value
            return self

        def assign_add(self, delta, *args, **kwargs):
            if owner.traced is None:
                return super().assign_add(delta, *args, **kwargs)
            return self.assign(self._handle + delta)

        def assign_sub(self, delta, *args, **kwargs):
            if owner.traced is None:
                return super().assign_sub(delta, *args, **kwargs)
            return self.assign(self._handle - delta)

    variable.__class__ = Variable


def shared_memory(size):
    """A float32 array of a size and a tensor over the same memory.

    Making a new tensor for each call costs more than the call itself. Relied on: on a CPU, the
    tensor does not copy the array, and a call is over when it returns, so that the next one's
    numbers may be written into the array.
    """
    alignment = 64  # bytes; TensorFlow would copy from an address that is not a multiple
    raw = np.zeros(size + alignment // 4, np.float32)
    start = -raw.ctypes.data % alignment // 4
    array = raw[start : start + size]
    return array, tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def forget_layers(model):
    """Let a model of the dynamic API list its layers and weights anew at the next look.

    Relied on: TensorLayer keeps these lists once made.
    """
    model._all_layers = model._all_weights = None
    model._trainable_weights = model._nontrainable_weights = None


def fix_nodes(layer):
    """Make a layer callable by itself. Relied on: the call that TensorLayer's models make."""
    layer._fix_nodes_for_layers()
