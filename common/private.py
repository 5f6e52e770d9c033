"""Everything that TensorFlow, Keras and TensorLayer do not promise and that is relied on here.

Names with an underscore and modules below `tensorflow.python` may change with any release. So
may what a public name does beyond its documentation. Nothing outside this module depends on
either, and what does is checked (common/compiled.py) before it is believed.
"""

import numpy as np
import tensorflow as tf


class NotFlat(Exception):
    """A function does what cannot be replayed without variables; the message says what."""


def caller(function):
    """A function of a list of tensors that runs a concrete function; returns its flat results.

    Relied on: `call_function` of the eager context. It takes 20 us, the public call 90.
    """
    from tensorflow.python.eager import context

    call, name, outside = context.context().call_function, function.name, function.captured_inputs
    n_outputs = len(function.structured_outputs)
    return lambda tensors: call(name, [*tensors, *outside], n_outputs)


def unpack_first(variable, owner):
    """From now on, any access to the variable's storage calls owner.unpack() first.

    Relied on: everything TensorFlow does with a variable, in Python and in C++, goes through
    its attribute `_handle`, and its class may be exchanged for a subclass.
    """
    if any(vars(kind).get("unpacked_by") is owner for kind in type(variable).__mro__):
        return

    class Variable(type(variable)):
        unpacked_by = owner

        @property
        def _handle(self):
            owner.unpack()
            return self.__dict__["_handle"]

        @_handle.setter
        def _handle(self, handle):
            self.__dict__["_handle"] = handle

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


def without_variables(function, variables):
    """Turn a concrete function's reads and assignments of variables into plain data flow.

    Relied on: `captures` of its graph; the operations' names, and their order, which is the
    program's: a read sees the value of the last assignment before it.

    Args:
        function: ConcreteFunction.
        variables: those that it may use.

    Returns:
        (GraphDef, dict from a handle's name to its variable, dict from a handle's name to the
        name of its final value, dict from the name of another captured tensor to this)

    Raises:
        NotFlat: it uses another variable, or one in another way.
    """
    graph = function.graph
    by_handle = {id(variable.handle): variable for variable in variables}
    handles, constants = {}, {}
    for outside, inside in graph.captures:
        if outside.dtype != tf.resource:
            constants[inside.name] = outside
        elif id(outside) in by_handle:
            handles[inside.op.name] = by_handle[id(outside)]
        else:
            raise NotFlat(
                "a compiled function uses a variable that is no attribute of the agent, nor of its "
                "networks or optimizers"
            )
    graph_def = graph.as_graph_def()
    nodes = {node.name: node for node in graph_def.node}
    latest = {handle: handle for handle in handles}
    alias = {}
    del graph_def.node[:]
    for op in graph.get_operations():
        node = nodes[op.name]
        inputs = [alias.get(name, name) for name in node.input if not name.startswith("^")]
        if op.type == "Placeholder":
            continue
        if op.type == "ReadVariableOp":
            alias[op.name] = latest[inputs[0]]
            continue
        if op.type == "AssignVariableOp":
            latest[inputs[0]] = inputs[1]
            continue
        if op.type in ("AssignAddVariableOp", "AssignSubVariableOp"):
            node.op = "AddV2" if op.type == "AssignAddVariableOp" else "Sub"
            node.attr["T"].type = node.attr["dtype"].type
            del node.attr["dtype"]
            handle, inputs[0] = inputs[0], latest[inputs[0]]
            latest[handle] = op.name
        elif any(tensor.dtype == tf.resource for tensor in op.inputs):
            raise NotFlat(f"a compiled function uses {op.type} on a variable")
        node.input[:] = inputs
        graph_def.node.append(node)
    return graph_def, handles, latest, constants


def trained_by(optimizer):
    """The weights that a built optimizer has slots for. Relied on: `_trainable_variables`."""
    return optimizer._trainable_variables


def forget_layers(model):
    """Let a model of the dynamic API list its layers and weights anew at the next look.

    Relied on: TensorLayer keeps these lists once made.
    """
    model._all_layers = model._all_weights = None
    model._trainable_weights = model._nontrainable_weights = None


def fix_nodes(layer):
    """Make a layer callable by itself. Relied on: the call that TensorLayer's models make."""
    layer._fix_nodes_for_layers()
