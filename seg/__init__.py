"""OperandoSeg: operando battery microscopy from pixels to numbers with units and intervals."""

__version__ = "0.1.0"
