"""What a layout or codec file says about itself, so that `secateur methods` can list it."""

from __future__ import annotations

from typing import ClassVar


class Method:
    """A way to store; the coding itself is C++ (`engine/formats/`), one row of the unpack table each.

    `code` is the number in the file (docs/format.md, section 4.1), `stores` what is written, `when` what `pack` picks
    it for, `size` the expected size as a formula in bits.
    """

    code: ClassVar[int]
    stores: ClassVar[str]
    when: ClassVar[str]
    size: ClassVar[str]
    reference: ClassVar[str] = ""
