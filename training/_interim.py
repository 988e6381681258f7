from dataclasses import dataclass
import numpy as np
from seg.stack import Stack

def open_stack(path):
    import tifffile
    from PIL import Image
    a = tifffile.imread(path) if path.suffix in (".tif",".tiff") else np.asarray(Image.open(path))
    if a.ndim==3: return Stack(np.moveaxis(a,-1,0),"cyx",name=path.name)
    return Stack(a,"yx",name=path.name)
def to_grey(f): return f.mean(0)
@dataclass
class SeriesNormalisation:
    low: float
    high: float
    @classmethod
    def fit(cls, stack, percentiles):
        f=stack.frame(0); f=to_grey(f) if "c" in stack.axes else f
        return cls(*np.percentile(f,percentiles))
    def apply(self,f): return np.clip((f.astype(np.float32)-self.low)/(self.high-self.low),-.5,1.5)
