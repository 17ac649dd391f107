"""All cases: importing this registers them."""

import cases_elementwise  # noqa: F401
import cases_reduce  # noqa: F401
import cases_shape  # noqa: F401
