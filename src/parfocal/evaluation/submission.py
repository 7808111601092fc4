"""Submissions as the lab wants them: `ID,label`, in the order of the test file, one file a network."""

import re
from pathlib import Path

import pandas as pd

from parfocal.data.table import Table
from parfocal.errors import ParfocalError, listing
from parfocal.evaluation.predictions import Predictions
from parfocal.files import whole


def write_submission(path: Path, table: Table, predictions: Predictions, model: str) -> None:
    """Write the answers for the test file that is named after the network, or for the whole test split."""
    wanted = table.lists.get(_list_for(model, table), predictions.ids)
    answers = {one: table.codes[label] for one, label in zip(predictions.ids, predictions.predicted, strict=True)}
    missing = [one for one in wanted if one not in answers]
    if missing:
        raise ParfocalError(f"{len(missing)} ids of the test file have no prediction: {listing(missing)}.")
    with whole(path) as beside:
        pd.DataFrame({"ID": wanted, "label": [answers[one] for one in wanted]}).to_csv(beside, index=False)


def _list_for(model: str, table: Table) -> str:
    """Find the list meant for a network: `resnet_18_test` for `resnet18`."""
    return next((name for name in table.lists if re.sub(r"_test$|[^a-z0-9]", "", name.lower()) == model), "")
