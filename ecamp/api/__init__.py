"""Public interface of ecamp: the one import of a plugin author.

    from ecamp.api import Dataset, DatasetInfo, PluginConfig, Record, Sample

Each name is loaded on first use, so that a data set that needs no torch does not import it.
docs/api.md lists the names and the promises of 0.x. Everything outside `ecamp.api`, `ecamp.ops`
and `ecamp.testing` is private. Code of ecamp itself imports from the defining modules instead
(tests/test_rooms.py), so this file is the top of the house and its submodules are the ground.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecamp.api.dataset import SPLITS as SPLITS
    from ecamp.api.dataset import USUAL_TRUTHS as USUAL_TRUTHS
    from ecamp.api.dataset import Dataset as Dataset
    from ecamp.api.dataset import DatasetInfo as DatasetInfo
    from ecamp.api.dataset import Record as Record
    from ecamp.api.dataset import Sample as Sample
    from ecamp.api.dataset import Truth as Truth
    from ecamp.api.distiller import DESCRIPTORS as DESCRIPTORS
    from ecamp.api.distiller import POLARITIES as POLARITIES
    from ecamp.api.distiller import Distilled as Distilled
    from ecamp.api.distiller import Distiller as Distiller
    from ecamp.api.distiller import Report as Report
    from ecamp.api.distiller import Section as Section
    from ecamp.api.distiller import Statement as Statement
    from ecamp.api.encoder import DualEncoder as DualEncoder
    from ecamp.api.encoder import Encoder as Encoder
    from ecamp.api.encoder import EncoderPlugin as EncoderPlugin
    from ecamp.api.encoder import Features as Features
    from ecamp.api.encoder import InputSpec as InputSpec
    from ecamp.api.encoder import PatchEncoder as PatchEncoder
    from ecamp.api.plugin import GROUPS as GROUPS
    from ecamp.api.plugin import Plugin as Plugin
    from ecamp.api.plugin import PluginConfig as PluginConfig
    from ecamp.api.plugin_ref import PluginRef as PluginRef
    from ecamp.api.pretext import Objective as Objective
    from ecamp.api.pretext import PretextBatch as PretextBatch
    from ecamp.api.pretext import PretextContext as PretextContext
    from ecamp.api.pretext import PretextPlugin as PretextPlugin
    from ecamp.api.pretext import Preview as Preview
    from ecamp.api.pretext import View as View
    from ecamp.api.pretext import ViewSpec as ViewSpec
    from ecamp.api.task import FEATURES as FEATURES
    from ecamp.api.task import Floor as Floor
    from ecamp.api.task import Inputs as Inputs
    from ecamp.api.task import Overlay as Overlay
    from ecamp.api.task import Predictor as Predictor
    from ecamp.api.task import TaskPlugin as TaskPlugin
    from ecamp.api.task import TaskSplit as TaskSplit
    from ecamp.api.task import distinct_texts as distinct_texts
    from ecamp.audit.dataset import audit_dataset as audit_dataset
    from ecamp.data.letterbox import letterbox as letterbox
    from ecamp.data.splits import few_shot as few_shot
    from ecamp.data.splits import hash_split as hash_split
    from ecamp.datasets.named_splits import NamedSplits as NamedSplits
    from ecamp.datasets.named_splits import SplitsByName as SplitsByName
    from ecamp.datasets.public import DEFAULT_FRACTIONS as DEFAULT_FRACTIONS
    from ecamp.datasets.public import ImagePayload as ImagePayload
    from ecamp.datasets.public import PublicConfig as PublicConfig
    from ecamp.datasets.public import PublicConfigT as PublicConfigT
    from ecamp.datasets.public import PublicDataset as PublicDataset
    from ecamp.datasets.published_lists import patient_of as patient_of
    from ecamp.distill.sinks import read_distilled as read_distilled
    from ecamp.errors import DataError as DataError
    from ecamp.errors import EcampError as EcampError
    from ecamp.errors import MissingError as MissingError
    from ecamp.errors import UsageError as UsageError
    from ecamp.io.folders import ImageIndex as ImageIndex
    from ecamp.io.folders import image_name as image_name
    from ecamp.io.folders import missing_file_error as missing_file_error
    from ecamp.io.folders import resolve_below_root as resolve_below_root
    from ecamp.io.images import read_image as read_image
    from ecamp.io.table import TableRow as TableRow
    from ecamp.io.table import read_table as read_table
    from ecamp.metrics.stats import Metric as Metric
    from ecamp.plugin.host import list_plugins as list_plugins
    from ecamp.plugin.host import make_plugin as make_plugin

# By defining module; tests/test_api.py holds this table, the imports above and docs/api.md together.
EXPORTS = {
    "ecamp.api.plugin": "GROUPS Plugin PluginConfig",
    "ecamp.api.dataset": "SPLITS USUAL_TRUTHS Dataset DatasetInfo Record Sample Truth",
    "ecamp.api.encoder": "DualEncoder Encoder EncoderPlugin Features InputSpec PatchEncoder",
    "ecamp.api.pretext": "Objective PretextBatch PretextContext PretextPlugin Preview View ViewSpec",
    "ecamp.api.task": "FEATURES Floor Inputs Overlay Predictor TaskPlugin TaskSplit distinct_texts",
    "ecamp.api.distiller": "DESCRIPTORS POLARITIES Distilled Distiller Report Section Statement",
    "ecamp.errors": "DataError EcampError MissingError UsageError",
    "ecamp.api.plugin_ref": "PluginRef",
    "ecamp.metrics.stats": "Metric",
    "ecamp.plugin.host": "list_plugins make_plugin",
    # Data sets in folders
    "ecamp.datasets.public": "DEFAULT_FRACTIONS ImagePayload PublicConfig PublicConfigT PublicDataset",
    "ecamp.datasets.named_splits": "NamedSplits SplitsByName",
    "ecamp.datasets.published_lists": "patient_of",
    "ecamp.data.splits": "few_shot hash_split",
    "ecamp.data.letterbox": "letterbox",
    "ecamp.io.folders": "ImageIndex image_name missing_file_error resolve_below_root",
    "ecamp.io.images": "read_image",
    "ecamp.io.table": "TableRow read_table",
    "ecamp.distill.sinks": "read_distilled",
    "ecamp.audit.dataset": "audit_dataset",
}
_MODULE_OF = {name: module for module, names in EXPORTS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ecamp.api' has no attribute '{name}'")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
