"""FlexMeasures' database as the topology sees it: read into a `State`, and changed by a plan, in one transaction.

The caller opens the transaction (`exclusively`) and ends it (commit or roll back). Everything here runs within
FlexMeasures' application context.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from flask_security.utils import hash_password, verify_password
from flexmeasures.data import db
from flexmeasures.data.models.audit_log import AssetAuditLog, AuditLog, truncate_string
from flexmeasures.data.models.generic_assets import GenericAsset, GenericAssetType
from flexmeasures.data.models.time_series import Sensor as SensorRow
from flexmeasures.data.models.time_series import TimedBelief
from flexmeasures.data.models.user import Account as AccountRow
from flexmeasures.data.models.user import Role
from flexmeasures.data.models.user import User as UserRow
from flexmeasures.data.services.generic_assets import delete_asset
from flexmeasures.data.services.sensors import delete_sensor
from flexmeasures.data.services.users import create_user, remove_cookie_and_token_access
from flexmeasures.utils.time_utils import server_now
from sqlalchemy import insert, select, text
from sqlalchemy.orm import aliased, selectinload

from cariflex.fm_plugin.plan import (
    AS_DECLARED,
    DIFFERENT,
    Account,
    Asset,
    Change,
    Described,
    Sensor,
    Settings,
    State,
    User,
    readable,
)

# Any number that nothing else in this database takes ("cariflex" in ASCII); held for the length of one transaction.
_LOCK = 0x63617269666C6578


@dataclass(frozen=True)
class Found:
    """What FlexMeasures has.

    Attributes:
        state: the account, every user, every sensor; of the assets only the account's own.
        asset_ids: name -> ids of the account's assets that bear it.
    """

    state: State
    asset_ids: Mapping[str, tuple[int, ...]]

    @property
    def ambiguous_assets(self) -> dict[str, tuple[int, ...]]:
        """Name -> ids, of names that several assets of the account bear."""
        return {name: ids for name, ids in self.asset_ids.items() if len(ids) > 1}


def exclusively() -> None:
    """Keep every other topology call out until this transaction ends.

    Raises:
        sqlalchemy.exc.OperationalError: another call held the lock for 10 s.
    """
    db.session.execute(text("SET LOCAL lock_timeout = '10s'"))
    db.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def read(account: str, passwords: Mapping[str, str]) -> Found:
    """Read the database.

    Args:
        account: name of the account whose assets are read.
        passwords: e-mail address -> password, to be compared with the stored hashes.
    """
    assets, ids = _assets(account)
    state = State(
        accounts={name: Account() for name in db.session.scalars(select(AccountRow.name).filter_by(name=account))},
        roles={name: Described(about or "") for name, about in _rows(select(Role.name, Role.description))},
        asset_types={
            name: Described(about or "")
            for name, about in _rows(select(GenericAssetType.name, GenericAssetType.description))
        },
        users={user.email: _user(user, passwords.get(user.email)) for user in _users()},
        assets=assets,
        sensors=_sensors(),
    )
    return Found(state, ids)


def with_data(sensor_ids: Collection[int]) -> set[int]:
    """Which of the sensors have data."""
    if not sensor_ids:
        return set()
    has_data = select(TimedBelief.sensor_id).where(TimedBelief.sensor_id == SensorRow.id).exists()
    return set(db.session.scalars(select(SensorRow.id).where(SensorRow.id.in_(sensor_ids), has_data)))


def _rows(query: Any) -> Iterable[Any]:
    rows: Iterable[Any] = db.session.execute(query)
    return rows


def _users() -> Iterable[Any]:
    query = select(UserRow).options(selectinload(UserRow.account), selectinload(UserRow.flexmeasures_roles))
    users: Iterable[Any] = db.session.scalars(query)
    return users


def _user(row: Any, password: str | None) -> User:
    same = password is None or verify_password(password, row.password)
    roles = tuple(sorted(role.name for role in row.flexmeasures_roles))
    return User(row.account.name, row.username, roles, AS_DECLARED if same else DIFFERENT)


def _assets(account: str) -> tuple[dict[str, Asset], dict[str, tuple[int, ...]]]:
    parent = aliased(GenericAsset)
    query = (
        select(
            *(GenericAsset.id, GenericAsset.name, GenericAssetType.name, parent.name),
            *(GenericAsset.latitude, GenericAsset.longitude),
            *(GenericAsset.attributes, GenericAsset.flex_context, GenericAsset.flex_model),
        )
        .join(GenericAssetType, GenericAsset.generic_asset_type_id == GenericAssetType.id)
        .join(AccountRow, GenericAsset.account_id == AccountRow.id)
        .outerjoin(parent, GenericAsset.parent_asset_id == parent.id)
        .where(AccountRow.name == account)
        .order_by(GenericAsset.id)
    )
    assets: dict[str, Asset] = {}
    ids = defaultdict(list)
    for id_, name, type_, parent_name, latitude, longitude, *settings in _rows(query):
        assets[name] = Asset(type_, parent_name, latitude, longitude, *(dict(each or {}) for each in settings))
        ids[name].append(id_)
    return assets, {name: tuple(several) for name, several in ids.items()}


def _sensors() -> dict[int, Sensor]:
    query = (
        select(
            *(SensorRow.id, SensorRow.name, SensorRow.unit, SensorRow.event_resolution, SensorRow.timezone),
            *(GenericAsset.name, AccountRow.name, SensorRow.attributes),
        )
        .join(GenericAsset, SensorRow.generic_asset_id == GenericAsset.id)
        .outerjoin(AccountRow, GenericAsset.account_id == AccountRow.id)
        .order_by(SensorRow.id)
    )
    return {
        id_: Sensor(name, unit, resolution, timezone, asset, account, dict(attributes or {}))
        for id_, name, unit, resolution, timezone, asset, account, attributes in _rows(query)
    }


def write(changes: Sequence[Change], *, account: str, timezone: str, passwords: Mapping[str, str]) -> None:
    """Carry out a plan; the transaction stays open.

    Args:
        changes: the plan, those that others refer to first.
        account: name of the account.
        timezone: what new users see times in.
        passwords: e-mail address -> password, of the users that are new or whose password changes.
    """
    _Writer(account, timezone, passwords).write(changes)


class _Writer:
    """Carries out one plan; rows that changes refer to are loaded once."""

    def __init__(self, account: str, timezone: str, passwords: Mapping[str, str]) -> None:
        self._account_name = account
        self._timezone = timezone
        self._passwords = passwords
        self._asset_events: list[tuple[Any, str]] = []
        self._new_sensors: list[dict[str, Any]] = []
        self._removed_assets: list[Any] = []

    def write(self, changes: Sequence[Change]) -> None:
        self._free_names(changes)
        for change in changes:
            match change.after:
                case None:
                    self._remove(change)
                case Account():
                    self._create_account(str(change.key))
                case Described(description):
                    self._describe(Role if change.kind == "roles" else GenericAssetType, change.key, description)
                case User() as user:
                    self._write_user(change, str(change.key), user)
                case Asset() as asset:
                    self._write_asset(change, str(change.key), asset)
                case Sensor() as sensor:
                    self._write_sensor(change, sensor)
        db.session.flush()  # now every asset has its id
        if self._new_sensors:
            _insert_sensors(self._new_sensors)
        if self._asset_events:
            now = server_now()
            records = [(row.id, truncate_string(event, 500)) for row, event in self._asset_events]
            rows = [{"event_datetime": now, "event": event, "affected_asset_id": id_} for id_, event in records]
            db.session.execute(insert(AssetAuditLog), rows)
        for row in self._removed_assets:
            delete_asset(row)

    def _free_names(self, changes: Iterable[Change]) -> None:
        """Take away names that change: rows are written one by one, and of two that swap, the first would clash."""
        for change in changes:
            was, wanted = change.before, change.after
            if (
                isinstance(was, Sensor)
                and isinstance(wanted, Sensor)
                and (was.name, was.asset) != (wanted.name, wanted.asset)
            ):
                db.session.get(SensorRow, change.key).name = f"renaming {change.key}"
        db.session.flush()

    @cached_property
    def _account(self) -> Any:
        return db.session.scalars(select(AccountRow).filter_by(name=self._account_name)).one()

    @cached_property
    def _assets(self) -> dict[str, Any]:
        rows = db.session.scalars(select(GenericAsset).filter_by(account_id=self._account.id))
        return {row.name: row for row in rows}

    @cached_property
    def _asset_types(self) -> dict[str, Any]:
        return {row.name: row for row in db.session.scalars(select(GenericAssetType))}

    def _create_account(self, name: str) -> None:
        row = AccountRow(name=name)
        db.session.add(row)
        db.session.flush()
        self._audit(f"Account {name} created by the topology", row.id)

    @staticmethod
    def _describe(model: Any, name: str | int, description: str) -> None:
        row = db.session.scalars(select(model).filter_by(name=name)).one_or_none()
        if row is None:
            row = model(name=name)
            db.session.add(row)
        row.description = description

    def _write_user(self, change: Change, email: str, user: User) -> None:
        if change.before is None:
            create_user(
                password=self._passwords[email],
                email=email,
                username=user.username,
                user_roles=list(user.roles),
                account_name=user.account,
                check_email_deliverability=False,  # ven@cariflex.internal is meant to have no mailbox
                timezone=self._timezone,
            )
            return
        differences = change.differences()
        row = db.session.scalars(select(UserRow).filter_by(email=email)).one()
        row.username = user.username
        row.flexmeasures_roles = list(db.session.scalars(select(Role).where(Role.name.in_(user.roles))))
        if "password" in differences:
            row.password = hash_password(self._passwords[email])
            remove_cookie_and_token_access(row)  # whoever is logged in with the old password no longer is
        self._audit(f"User {email} updated by the topology: {', '.join(differences)}", row.account_id, row.id)

    def _write_asset(self, change: Change, name: str, asset: Asset) -> None:
        values = {
            "generic_asset_type": self._asset_types[asset.type],
            "parent_asset": None if asset.parent is None else self._assets[asset.parent],
            "latitude": asset.latitude,
            "longitude": asset.longitude,
            **_settings(attributes=asset.attributes, flex_context=asset.flex_context, flex_model=asset.flex_model),
        }
        if change.before is None:
            self._assets[name] = GenericAsset(name=name, owner=self._account, **values)
            db.session.add(self._assets[name])
        if change.was is not None:
            self._assets[name] = self._assets.pop(change.was)
            self._assets[name].name = name
        row = self._assets[name]
        for column, value in values.items():
            setattr(row, column, value)
        self._asset_events.append((row, _event(change)))

    def _write_sensor(self, change: Change, sensor: Sensor) -> None:
        asset = self._assets[sensor.asset]
        values = {
            "name": sensor.name,
            "unit": sensor.unit,
            "event_resolution": sensor.resolution,
            "timezone": sensor.timezone,
            **_settings(attributes=sensor.attributes),
        }
        if change.before is None:
            self._new_sensors.append({"attributes": {}, **values, "id": change.key, "generic_asset": asset})
        else:
            row = db.session.get(SensorRow, change.key)
            for column, value in {**values, "generic_asset": asset}.items():
                setattr(row, column, value)
        self._asset_events.append((asset, _event(change)))

    def _remove(self, change: Change) -> None:
        """Remove a sensor at once, an asset after everything else: FlexMeasures removes what is below it too."""
        if isinstance(change.before, Sensor):
            delete_sensor(db.session.get(SensorRow, change.key))
        else:
            self._removed_assets.append(self._assets[str(change.key)])

    @staticmethod
    def _audit(event: str, account_id: int, user_id: int | None = None) -> None:
        record = AuditLog(
            event_datetime=server_now(), event=event, affected_account_id=account_id, affected_user_id=user_id
        )
        db.session.add(record)


def _settings(**columns: Settings) -> dict[str, dict[str, Any]]:
    """The columns that are declared."""
    return {name: dict(value) for name, value in columns.items() if value is not None}


def _event(change: Change) -> str:
    """One line of FlexMeasures' audit log."""
    if change.before is None:
        return f"Created by the topology: {change.path}"
    told = (f"{name} from {readable(old)} to {readable(new)}" for name, (old, new) in change.differences().items())
    return f"Updated by the topology: {change.path}: {'; '.join(told)}"


def _insert_sensors(sensors: list[dict[str, Any]]) -> None:
    """Add sensors under the ids that they are to have, all at once: ten thousand one by one take minutes."""
    horizons = {resolution: _knowledge_horizon(resolution) for resolution in {s["event_resolution"] for s in sensors}}
    rows = [{**sensor, **horizons[sensor["event_resolution"]]} for sensor in sensors]
    for row in rows:
        row["generic_asset_id"] = row.pop("generic_asset").id
    db.session.execute(insert(SensorRow), rows)
    _advance_sensor_ids()


def _knowledge_horizon(resolution: timedelta) -> dict[str, Any]:
    """When values of a sensor count as known, as FlexMeasures sets it for a new one; no row is made."""
    made = SensorRow(name="any", generic_asset_id=0, event_resolution=resolution)
    return {name: getattr(made, name) for name in ("knowledge_horizon_fnc", "knowledge_horizon_par")}


def _advance_sensor_ids() -> None:
    """Make the sequence give ids above every one in use, so that sensors added otherwise do not collide."""
    db.session.execute(
        text(
            "SELECT setval(s, GREATEST((SELECT max(id) FROM sensor), pg_sequence_last_value(s::regclass)))"
            " FROM pg_get_serial_sequence('sensor', 'id') AS s"
        )
    )
