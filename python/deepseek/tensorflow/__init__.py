"""The TensorFlow side of deepseek. Importing it imports TensorFlow; `import deepseek` alone does not.

`deepseek.compile` takes a Keras model, a tf.function, a concrete function or a SavedModel's folder and gives
a `Model`, which follows the function's variables and has a gradient in tf.GradientTape.
"""

from deepseek.tensorflow.functions import is_model
from deepseek.tensorflow.model import Model, compile_model

__all__ = ["Model", "compile_model", "is_model"]
