"""A trial: a run of the image trainer, and what the study hears of it."""

import dataclasses
import gc
from typing import Any

import optuna
from optuna.trial import TrialState

from examples.images.training import Training
from examples.search.study import Claimed
from examples.search.study import Shared
from examples.trainer import runs


def attempt(shared: Shared, claimed: Claimed, dataset: Any) -> None:
    """Trains; ends the trial as complete, as pruned, or as failed with its reason.

    Raises:
      OSError: if the disk fails, which is no fault of the trial.
      runs.Stopped: if a signal asked for it. Either way the trial can be resumed.
    """
    study, trial = shared.study, claimed.trial
    try:
        score = train(shared, claimed, dataset)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (OSError, runs.Stopped):
        raise
    except Exception as error:  # whatever values of the search make JAX or Optax raise
        reason = " ".join(str(error).split()) or type(error).__name__
        trial.set_user_attr("reason", reason)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, score)
    gc.collect()  # the data on the device, which the next trial brings again


def train(shared: Shared, claimed: Claimed, dataset: Any) -> float:
    """The validation accuracy after the last epoch; the study hears of each.

    Raises:
      optuna.TrialPruned: if the trial is hopeless.
    """
    trial, folder = claimed.trial, claimed.folder
    config = dataclasses.replace(
        shared.method.config, **claimed.params, seeds=1, output=folder
    )
    training = Training(config, dataset)
    known = shared.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def report(record: runs.Record) -> None:
        epoch = int(record["epoch"])
        if epoch not in known:  # a run that was killed may repeat an epoch
            trial.report(record[training.goal], epoch)
        if epoch < config.epochs and trial.should_prune():
            raise optuna.TrialPruned

    return runs.run(config, training, folder, report)[f"final_{training.goal}"]
