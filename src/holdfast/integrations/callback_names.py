"""The part of ``ModelCheckpoint`` that knows names: its words, its directory, its file names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigurationError
from holdfast.front.words import (
    NameStyle,
    Settings,
    StorageOptions,
    check_inside,
    file_name,
    join_path,
    make_settings,
    open_store,
    real_path,
    template_keys,
    use_options,
)
from holdfast.telling import warn

Words = dict[str, Any]


class NamesMixin:
    """Words, directory and names."""

    CHECKPOINT_JOIN_CHAR = "-"
    CHECKPOINT_EQUALS_CHAR = "="
    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = ".ckpt"
    STARTING_VERSION = 1

    #: The class of the errors for wrong arguments; Lightning's own under Lightning.
    _misconfiguration: type[Exception] = ConfigurationError

    def _init_words(self, words: Words) -> None:
        """Check the words and take them as attributes, under the names that loggers look for."""
        epochs = words.pop("every_n_val_epochs")
        if epochs is not None:
            warn("`every_n_val_epochs` is deprecated: use `every_n_epochs` instead", DeprecationWarning)
            if words["every_n_epochs"] is not None:
                msg = f"`every_n_val_epochs`={epochs!r} is an old name of `every_n_epochs`: give only the latter"
                raise self._misconfiguration(msg)
            words["every_n_epochs"] = epochs
        if words["keep"] is not None and words["save_top_k"] == 1:  # the default: nobody has asked for it
            words["save_top_k"] = None
        try:
            settings = make_settings(style=self._style(), **words)
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None
        self.monitor = settings.monitor
        self.mode = settings.mode
        self.save_top_k = settings.save_top_k
        self.save_last: bool | Literal["link"] | None = words["save_last"]
        self.save_weights_only = settings.save_weights_only
        self.save_on_exception = settings.save_on_exception
        self.filename = settings.filename
        self.auto_insert_metric_name = settings.auto_insert_metric_name
        self._every_n_train_steps = settings.every_n_train_steps
        self._every_n_epochs = settings.every_n_epochs
        self._train_time_interval: timedelta | None = words["train_time_interval"]
        self._save_on_train_epoch_end = settings.save_on_train_epoch_end
        self._enable_version_counter = settings.enable_version_counter
        self.keep = settings.keep
        self.save_when = settings.save_when
        self._notation = settings.notation
        self._when = settings.when if settings.save_when is not None else None

    def _init_dirpath(self, dirpath: str | os.PathLike[str] | None, options: Mapping[str, Any] | None) -> None:
        if dirpath is not None and not isinstance(dirpath, (str, os.PathLike)):
            msg = f"`dirpath` is a path, a URL or None, but got {dirpath!r}"
            raise self._misconfiguration(msg)
        given = os.fspath(dirpath) if dirpath is not None else None
        self._dirpath_given = given
        self.dirpath: str | None = real_path(given) if given else given
        self._storage_options = StorageOptions(options) if isinstance(options, Mapping) else options
        try:
            if given:
                self._use_options()
            open_store(self.dirpath or "")
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None

    def _use_options(self) -> None:
        """Have this process know the options: one that was spawned knows them by the callback alone."""
        use_options(self.__dict__.get("_storage_options"), self.dirpath, self.__dict__.get("_mirror_given"))

    @property
    def every_n_epochs(self) -> int:
        """Number of epochs between checkpoints."""
        return self._every_n_epochs

    @property
    def _clock(self) -> Clock:
        return self.__dict__.get("_own_clock") or SystemClock()

    def _style(self) -> NameStyle:
        return NameStyle(
            join=self.CHECKPOINT_JOIN_CHAR,
            equals=self.CHECKPOINT_EQUALS_CHAR,
            last=self.CHECKPOINT_NAME_LAST,
            extension=self.FILE_EXTENSION,
            starting_version=self.STARTING_VERSION,
        )

    def _settings(self) -> Settings:
        """Return the words as they are now, checked again: users change attributes after construction."""
        try:
            return make_settings(
                monitor=self.monitor,
                mode=self.mode,
                save_top_k=self.save_top_k if self.keep is None else None,
                save_last=self.save_last,
                save_weights_only=self.save_weights_only,
                save_on_exception=self.save_on_exception,
                every_n_train_steps=self._every_n_train_steps if self.save_when is None else None,
                train_time_interval=self._train_time_interval,
                every_n_epochs=self._every_n_epochs if self.save_when is None else None,
                save_on_train_epoch_end=self._save_on_train_epoch_end,
                filename=self.filename,
                auto_insert_metric_name=self.auto_insert_metric_name,
                enable_version_counter=self._enable_version_counter,
                keep=self.keep,
                save_when=self.save_when,
                style=self._style(),
            )
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None

    def format_checkpoint_name(
        self,
        metrics: Mapping[str, Any],
        filename: str | None = None,
        ver: int | None = None,
        prefix: str | None = None,
    ) -> str:
        """Return the path for these metrics: the template filled in, below ``dirpath`` if there is one.

        Args:
            metrics: values by name; a name that is missing counts as 0. Not changed.
            filename: a template instead of the callback's own.
            ver: appended as ``-v<ver>``.
            prefix: put in front, joined with ``-``.

        Raises:
            MisconfigurationException: for a wrong template, or a name that leads outside the directory.

        """
        style, template = self._style(), filename or self.filename
        try:
            name = file_name(
                template,
                {key: _number(metrics[key]) for key in template_keys(template, style) if key in metrics},
                style,
                auto_insert=self.auto_insert_metric_name,
                version=ver,
                prefix=prefix,
            )
            check_inside(name, f"the template {template!r}")
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None
        return join_path(self.dirpath, name) if self.dirpath else name

    def _resolve_dirpath(self, trainer: Any) -> str:
        """Return the directory, in the order of the documentation: own, logger's, ``weights_save_path``, root's."""
        if self.dirpath is not None:
            return self.dirpath or os.getcwd()
        root = trainer.default_root_dir
        if trainer.loggers:
            first = trainer.loggers[0]
            base = root if first.save_dir is None else first.save_dir
            version = first.version if isinstance(first.version, str) else f"version_{first.version}"
            return real_path(join_path(str(base), "/".join((str(first.name), version, "checkpoints"))))
        weights = getattr(trainer, "weights_save_path", None)
        return real_path(join_path(str(weights or root), "checkpoints"))


def _number(value: Any) -> float | str:
    """Return a number, or a tensor's or array's one element; anything else as text."""
    try:
        number = value.item() if hasattr(value, "item") else value
    except (RuntimeError, ValueError):  # more than one element
        return str(value)
    return number if isinstance(number, (int, float)) else str(number)
