"""A trial: a run of the image trainer, and its reports to the study."""

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
    """Trains; marks the trial as complete, pruned, or failed with its reason.

    Raises:
      OSError: if the disk fails, which isn't the trial's fault.
      runs.Stopped: if a signal asked for it. Either way, the trial can be resumed.
    """
    study, trial = shared.study, claimed.trial
    try:
        score = train(shared, claimed, dataset)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (OSError, runs.Stopped):
        raise
    except Exception as error:  # searched values may make JAX or Optax raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        trial.set_user_attr("reason", reason)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, score)
    gc.collect()  # the data on the device, which the next trial loads again


def train(shared: Shared, claimed: Claimed, dataset: Any) -> float:
    """The validation accuracy after the last epoch; reports each epoch to the study.

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
