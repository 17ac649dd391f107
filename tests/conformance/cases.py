"""All cases: importing this registers them."""

import cases_contract  # noqa: F401
import cases_elementwise  # noqa: F401
import cases_index  # noqa: F401
import cases_linalg  # noqa: F401
import cases_norm  # noqa: F401
import cases_reduce  # noqa: F401
import cases_shape  # noqa: F401
