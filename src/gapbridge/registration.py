"""Makes the Auto classes of transformers know this package's model, as soon as they are imported by anyone.

Nothing heavy is imported here. The registration itself needs transformers whole, which is the case when the
outermost import of one of its modules ends, and has a point once that import has brought the Auto classes.
"""

import importlib.machinery
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_PACKAGE = "transformers"
_AUTO_CLASSES = "transformers.models.auto.configuration_auto"


def register() -> None:
    """Tell AutoConfig, AutoModel, AutoModelForImageTextToText, AutoImageProcessor and AutoProcessor."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

    from gapbridge.model import vlm
    from gapbridge.model.config import GapbridgeConfig, GapbridgeVisionConfig
    from gapbridge.model.images import GapbridgeImageProcessor
    from gapbridge.model.processor import GapbridgeProcessor
    from gapbridge.model.vision import PooledVisionTower

    for config in (GapbridgeVisionConfig, GapbridgeConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(GapbridgeVisionConfig, PooledVisionTower, exist_ok=True)
    AutoModel.register(GapbridgeConfig, vlm.GapbridgeModel, exist_ok=True)
    AutoModelForImageTextToText.register(GapbridgeConfig, vlm.GapbridgeForConditionalGeneration, exist_ok=True)
    backends = {"pil": GapbridgeImageProcessor, "torchvision": GapbridgeImageProcessor}
    AutoImageProcessor.register(GapbridgeConfig, image_processor_classes=backends, exist_ok=True)
    AutoProcessor.register(GapbridgeConfig, GapbridgeProcessor, exist_ok=True)


class _Registrar:
    """A finder that finds modules of transformers where they always were, and notices when the outermost has run."""

    def __init__(self) -> None:
        self._running = threading.local()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The usual spec of a module of transformers, with its loader told what to do afterwards."""
        if name.partition(".")[0] != _PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            depth = getattr(self._running, "depth", 0)
            self._running.depth = depth + 1
            try:
                execute(module)
            finally:
                self._running.depth = depth
            if depth == 0 and _AUTO_CLASSES in sys.modules:
                self._finish()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

    def _finish(self) -> None:
        """Register, once; imports go their usual way from here on."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            register()


def install() -> None:
    """Register now if transformers has its Auto classes already, and else as soon as it has them."""
    if _AUTO_CLASSES in sys.modules:
        register()
    elif not any(isinstance(finder, _Registrar) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Registrar())
