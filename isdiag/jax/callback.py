"""Functions of NumPy arrays called from compiled JAX, and the arrays that cross over."""
# pyright: reportUnknownMemberType=false
# JAX's annotations have gaps.

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isdiag._core.boundary import real_array


def on_host(function: Any, like: Any, *arrays: Any, vmap_method: str) -> Any:
    """A function of arrays in CPU memory, with results like `like`; no gradient passes.

    Numbers of 64 bits cross as pairs of 32-bit words. Where `jax.enable_x64` holds in the caller's thread
    only, JAX would narrow them in the thread that calls back.
    """
    dtypes = [array.dtype for array in arrays]

    def call(*given: Any) -> Any:
        with np.errstate(all="ignore"):  # far from 1, ratios and narrowed results overflow to their limits
            return jax.tree.map(_host_words, like, function(*map(_host_whole, given, dtypes)))

    words = jax.lax.stop_gradient([_words(array) for array in arrays])
    result = jax.pure_callback(call, jax.tree.map(_words_like, like), *words, vmap_method=vmap_method)
    return jax.tree.map(_whole, like, result)


def _wide(array: Any) -> bool:
    return array.dtype.itemsize == 8


def _words(array: Any) -> Any:
    return jax.lax.bitcast_convert_type(array, np.uint32) if _wide(array) else array


def _host_whole(words: Any, dtype: Any) -> Any:
    return words if words.dtype == dtype else np.asarray(words).view(dtype)[..., 0]


def _host_words(like: Any, value: Any) -> Any:
    array = np.asarray(value, like.dtype)
    return array[..., None].view(np.uint32) if _wide(array) else array


def _words_like(like: Any) -> Any:
    return shaped((*like.shape, 2), np.uint32) if _wide(like) else like


def _whole(like: Any, words: Any) -> Any:
    return jax.lax.bitcast_convert_type(words, like.dtype) if _wide(like) else words


def real(x: Any, name: str) -> jax.Array:
    """An array of real numbers; TypeError otherwise."""
    array = jnp.asarray(x)
    if array.dtype != jnp.bfloat16:
        real_array(np.empty(0, array.dtype), name)
    return array


def widened(x: Any, name: str) -> jax.Array:
    """The same, of single precision at least."""
    array = real(x, name)
    return array.astype(jnp.promote_types(array.dtype, np.float32))


def shaped(shape: tuple[int, ...], dtype: Any) -> Any:
    """What a result looks like."""
    return jax.ShapeDtypeStruct(shape, dtype)


def default_float() -> Any:
    """The float dtype that JAX is set to."""
    return jnp.result_type(float)
