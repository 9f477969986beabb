"""The established external validation: trained on the Rotterdam tumor bank, tested on GBSG."""

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd

from medserve_training.data.csv_table import CsvTable, read_csv, table_of
from medserve_training.data.patient_data import gbsg_table, read_table
from medserve_training.data.schema import Schema, load_schema
from medserve_training.data.splits import Patients
from medserve_training.errors import UserError

DESCRIPTION = "Rotterdam tumor bank, node-positive patients (R package survival), to GBSG 2"


def load_external(data_dir: Path) -> tuple[Patients, Patients, Schema]:
    """Loads (train, test, schema): node-positive patients of Rotterdam, and those of GBSG in the same coding.

    Rotterdam has three classes of tumor size and no grade I, so GBSG's patients are recoded to match.

    Raises:
        UserError: rotterdam.csv is not in the folder, or is invalid.
    """
    path = data_dir / "rotterdam.csv"
    if not path.is_file():
        raise UserError(
            f"{path} is missing; write it in R with write.csv(survival::rotterdam, 'rotterdam.csv', row.names=FALSE), "
            "and name its folder with --data-dir or $MEDSERVE_DATA",
        )
    with as_file(files("medserve_training.data") / "schemas" / "rotterdam.toml") as place:
        schema = load_schema(place)
    train = read_table(table_of(_rotterdam(read_csv(path)), f"{path}, node-positive patients"), schema)
    return train, read_table(table_of(_gbsg(), "gbsg"), schema), schema


def _rotterdam(table: CsvTable) -> pd.DataFrame:
    """Returns node-positive patients, with the time from surgery to relapse, death or censoring.

    Deaths after the end of follow-up for relapse are ignored, since an earlier relapse may have gone unobserved.

    Raises:
        UserError: A column is missing or contains other values than numbers.
    """
    numeric = {name: table.numbers(name) for name in ("nodes", "recur", "death", "rtime", "dtime", "grade")}
    covariates = {name: table.column(name) for name in ("age", "meno", "size", "nodes", "pgr", "er", "hormon")}
    found = pd.DataFrame(numeric)
    died = (found["recur"] == 0) & (found["death"] == 1) & (found["dtime"] <= found["rtime"])
    patients = pd.DataFrame(
        {
            **covariates,
            "grade": found["grade"].map({2: "I or II", 3: "III"}),
            "time": found["rtime"].clip(lower=1),
            "event": ((found["recur"] == 1) | died).astype(int),
        },
    )
    return patients[found["nodes"] > 0]


def _gbsg() -> pd.DataFrame:
    table = gbsg_table()
    return pd.DataFrame(
        {
            "age": table["age"],
            "meno": (table["menostat"] == "Post").astype(int),
            "size": np.select([table["tsize"] <= 20, table["tsize"] <= 50], ["<=20", "20-50"], ">50"),
            "grade": np.where(table["tgrade"] == "III", "III", "I or II"),
            "nodes": table["pnodes"],
            "pgr": table["progrec"],
            "er": table["estrec"],
            "hormon": (table["horTh"] == "yes").astype(int),
            "time": table["time"],
            "event": table["cens"].astype(int),
        },
    )
