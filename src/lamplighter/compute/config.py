"""Render the configuration of one Postgres from its spec.

Pure: text out of values. The files lie outside of the data directory, because that may be visible only inside a mount
namespace, and because what `initdb` or a parent branch left in it must not count. Where a figure comes from is said
beside it; memory follows Neon's sizes, 4 GB for 1 CU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamplighter.compute.ports import ComputeSpec

SUPERUSER = "cloud_admin"
#: Exists while a schema is copied, to run what users wrote: no superuser, and let in by the Unix socket alone.
COPIER = "cloud_copier"
#: The name of the socket file has a port in it even if there is no TCP.
SOCKET_PORT = 5432
MAX_CONNECTIONS = 4000
#: The same for all sizes and not the user's: a standby must have no less of any of them than its primary. Of senders
#: and slots users have 10, as at Neon; the others are there for standbys and for the copies of a clone.
WAL_SENDERS = 10 + 16
SLOTS = 10 + 16
WORKERS = 16
PREPARED = 0
LOCKS = 64


@dataclass(frozen=True, slots=True)
class Floors:
    """What a hot standby must have at least, as its primary's WAL demands it (`pg_controldata` tells)."""

    max_connections: int = 0
    max_worker_processes: int = 0
    max_wal_senders: int = 0
    max_prepared_transactions: int = 0
    max_locks_per_transaction: int = 0


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate (with its chain) and key of the server."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Facts:
    """What a configuration depends on beside the spec: the build, and the places that the supervisor chose.

    `tls` None means that the build has no OpenSSL, or that nobody connects by TCP. `preload` are libraries that the
    build has. `primary_socket_dir` says where a standby finds its primary.
    """

    major: int
    socket_dir: Path
    os_users: tuple[str, ...]
    tls: Tls | None = None
    preload: tuple[str, ...] = ()
    copy_on_write: bool = False
    floors: Floors = field(default_factory=Floors)
    primary_socket_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """Memory figures in MiB."""

    memory: int
    shared_buffers: int
    effective_cache_size: int
    work_mem: int
    maintenance_work_mem: int
    max_wal_size: int
    max_connections: int
    parallel_workers: int


def size_of(cu: float) -> Size:
    """Figures for a compute of `cu` units.

    `max_connections` is Neon's: bytes of memory over 9531392, at most 4000. `shared_buffers` stays small on purpose:
    16 MB start in 48 ms, 128 MB in 71 (data-plane measurements), and the page cache of the host is shared.
    """
    memory = max(256, int(cu * 4096))
    return Size(
        memory=memory,
        shared_buffers=min(8192, max(16, memory // 64)),
        effective_cache_size=memory * 3 // 4,
        work_mem=min(64, max(4, memory // 1024)),
        maintenance_work_mem=min(2048, max(64, memory // 16)),
        max_wal_size=min(8192, max(1024, memory // 4)),
        max_connections=min(MAX_CONNECTIONS, memory * 1024 * 1024 // 9531392),
        parallel_workers=max(2, int(cu)),
    )


#: What the platform decides, and why a user does not: where files lie, who gets in, and that a commit is on disk.
FORBIDDEN: frozenset[str] = frozenset(  # words, because two hundred quoted names would fill pages
    """
    allow_alter_system allow_system_table_mods archive_cleanup_command archive_command archive_library archive_mode
    archive_timeout authentication_timeout bonjour bonjour_name cluster_name config_file data_checksums data_directory
    data_directory_mode data_sync_retry db_user_namespace debug_assertions debug_deadlocks dynamic_library_path
    dynamic_shared_memory_type event_source extension_control_path external_pid_file fsync full_page_writes
    gss_accept_delegation hba_file hot_standby huge_page_size huge_pages ident_file ignore_checksum_failure
    ignore_invalid_pages ignore_system_indexes io_method io_workers io_max_workers jit_provider lc_messages
    krb_caseins_users krb_server_keyfile listen_addresses
    local_preload_libraries log_destination log_directory log_file_mode log_filename log_line_prefix
    log_min_error_statement log_min_messages log_rotation_age log_rotation_size log_statement log_timezone
    log_truncate_on_rotation logging_collector max_connections max_files_per_process max_locks_per_transaction
    max_prepared_transactions max_replication_slots max_slot_wal_keep_size max_stack_depth max_wal_senders
    max_worker_processes min_dynamic_shared_memory oauth_validator_libraries password_encryption port primary_conninfo
    primary_slot_name promote_trigger_file recovery_end_command recovery_init_sync_method recovery_prefetch
    recovery_target recovery_target_action recovery_target_inclusive recovery_target_lsn recovery_target_name
    recovery_target_time recovery_target_timeline recovery_target_xid remove_temp_files_after_crash reserved_connections
    restart_after_crash restore_command role send_abort_for_crash send_abort_for_kill server_version server_version_num
    session_authorization session_preload_libraries session_replication_role shared_buffers shared_memory_type
    shared_preload_libraries ssl ssl_ca_file ssl_cert_file ssl_ciphers ssl_crl_dir ssl_crl_file ssl_dh_params_file
    ssl_ecdh_curve ssl_groups ssl_key_file ssl_library ssl_max_protocol_version ssl_min_protocol_version
    ssl_passphrase_command ssl_passphrase_command_supports_reload ssl_prefer_server_ciphers ssl_tls13_ciphers
    stats_temp_directory summarize_wal superuser_reserved_connections synchronized_standby_slots
    synchronous_commit synchronous_standby_names syslog_facility syslog_ident temp_tablespaces
    trace_recovery_messages transaction_read_only transaction_isolation transaction_deferrable unix_socket_directories
    unix_socket_group unix_socket_permissions wal_consistency_checking wal_debug wal_init_zero wal_keep_size wal_level
    wal_log_hints wal_recycle wal_segment_size wal_sync_method wal_writer_delay wal_writer_flush_after
    zero_damaged_pages
    """.split()  # noqa: SIM905
)

#: What a user may set for an endpoint. A list of what is allowed and not only of what is forbidden, because a new
#: major may bring a setting that runs programs; a name in neither is refused.
ALLOWED: frozenset[str] = frozenset(
    """
    array_nulls autovacuum autovacuum_analyze_scale_factor autovacuum_analyze_threshold autovacuum_freeze_max_age
    autovacuum_max_workers autovacuum_multixact_freeze_max_age autovacuum_naptime autovacuum_vacuum_cost_delay
    autovacuum_vacuum_cost_limit autovacuum_vacuum_insert_scale_factor autovacuum_vacuum_insert_threshold
    autovacuum_vacuum_max_threshold autovacuum_vacuum_scale_factor autovacuum_vacuum_threshold autovacuum_work_mem
    backend_flush_after bgwriter_delay bgwriter_flush_after bgwriter_lru_maxpages bgwriter_lru_multiplier
    bytea_output check_function_bodies checkpoint_completion_target checkpoint_flush_after checkpoint_timeout
    checkpoint_warning client_connection_check_interval client_encoding client_min_messages commit_delay
    commit_siblings compute_query_id constraint_exclusion cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost
    createrole_self_grant cursor_tuple_fraction datestyle deadlock_timeout default_statistics_target
    default_table_access_method default_text_search_config default_toast_compression default_transaction_deferrable
    default_transaction_isolation default_transaction_read_only effective_cache_size effective_io_concurrency
    enable_async_append enable_bitmapscan enable_distinct_reordering enable_gathermerge enable_group_by_reordering
    enable_hashagg enable_hashjoin enable_incremental_sort enable_indexonlyscan enable_indexscan enable_material
    enable_memoize enable_mergejoin enable_nestloop enable_parallel_append enable_parallel_hash
    enable_partition_pruning enable_partitionwise_aggregate enable_partitionwise_join enable_presorted_aggregate
    enable_self_join_elimination enable_seqscan enable_sort enable_tidscan escape_string_warning exit_on_error
    extra_float_digits file_copy_method from_collapse_limit geqo geqo_effort geqo_generations geqo_pool_size
    geqo_seed geqo_selection_bias geqo_threshold gin_fuzzy_search_limit gin_pending_list_limit hash_mem_multiplier
    hot_standby_feedback idle_in_transaction_session_timeout idle_replication_slot_timeout idle_session_timeout
    intervalstyle io_combine_limit io_max_combine_limit io_max_concurrency jit jit_above_cost jit_inline_above_cost
    jit_optimize_above_cost join_collapse_limit lc_monetary lc_numeric lc_time lo_compat_privileges lock_timeout
    logical_decoding_work_mem maintenance_io_concurrency maintenance_work_mem max_active_replication_origins
    max_logical_replication_workers max_notify_queue_pages max_parallel_apply_workers_per_subscription
    max_parallel_maintenance_workers max_parallel_workers max_parallel_workers_per_gather max_pred_locks_per_page
    max_pred_locks_per_relation max_pred_locks_per_transaction max_standby_archive_delay max_standby_streaming_delay
    max_sync_workers_per_subscription max_wal_size min_parallel_index_scan_size min_parallel_table_scan_size
    min_wal_size old_snapshot_threshold parallel_leader_participation parallel_setup_cost parallel_tuple_cost
    plan_cache_mode quote_all_identifiers random_page_cost recursive_worktable_factor row_security search_path
    seq_page_cost standard_conforming_strings statement_timeout stats_fetch_consistency synchronize_seqscans
    tcp_keepalives_count tcp_keepalives_idle tcp_keepalives_interval tcp_user_timeout temp_buffers temp_file_limit
    timezone timezone_abbreviations track_activities track_activity_query_size track_commit_timestamp
    track_cost_delay_timing track_counts track_functions track_io_timing track_wal_io_timing transaction_timeout
    transform_null_equals vacuum_buffer_usage_limit vacuum_cost_delay vacuum_cost_limit vacuum_cost_page_dirty
    vacuum_cost_page_hit vacuum_cost_page_miss vacuum_failsafe_age vacuum_freeze_min_age vacuum_freeze_table_age
    vacuum_max_eager_freeze_failure_rate vacuum_multixact_failsafe_age vacuum_multixact_freeze_min_age
    vacuum_multixact_freeze_table_age vacuum_truncate wal_buffers wal_compression wal_receiver_status_interval
    wal_receiver_timeout wal_retrieve_retry_interval wal_sender_timeout wal_skip_threshold work_mem xmlbinary
    xmloption
    """.split()  # noqa: SIM905
)

#: Settings of extensions that hold no path, command or library.
ALLOWED_PREFIXES: tuple[str, ...] = ("pg_stat_statements.", "pg_trgm.", "hnsw.", "ivfflat.", "plpgsql.", "app.")

_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
_MAX_VALUE = 1000


def check_settings(settings: Mapping[str, str]) -> list[str]:
    """Say what is wrong with settings that a user asks for: a sentence each, nothing when all may be set.

    Whether Postgres takes a *value* is known to Postgres alone: `Supervisor.validate` asks it.
    """
    return [problem for name, value in settings.items() if (problem := _problem(name, value))]


def _problem(name: str, value: str) -> str | None:
    shown = name if len(name) <= 63 else name[:60] + "..."
    lowered = name.lower()
    if not _NAME.fullmatch(lowered):
        return f"{shown!r} is not the name of a setting."
    if lowered in FORBIDDEN:
        return f'The setting "{shown}" is the platform\'s and cannot be changed.'
    if lowered not in ALLOWED and not lowered.startswith(ALLOWED_PREFIXES):
        return f'The setting "{shown}" is not known, or cannot be changed here.'
    if "\0" in value or len(value) > _MAX_VALUE or not _encodable(value):
        return f'The value of "{shown}" must be text of at most {_MAX_VALUE} characters.'
    return None


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_ESCAPES = {"'": "''", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\t": "\\t"}


def quote_value(value: str) -> str:
    """Quote for postgresql.conf. A line ends a value there, so line ends are escaped. Raises ValueError for a NUL."""
    if "\0" in value:
        raise ValueError("a setting cannot hold a NUL")
    return "'" + "".join(_ESCAPES.get(char, char) for char in value) + "'"


def quote_conninfo(value: str) -> str:
    """Quote one value inside of a libpq connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def render_settings(settings: Iterable[tuple[str, str]]) -> str:
    """Lines of postgresql.conf. Raises ValueError for what is no name of a setting."""
    lines = []
    for name, value in settings:
        if not _NAME.fullmatch(name.lower()):
            raise ValueError(name)
        lines.append(f"{name} = {quote_value(value)}\n")
    return "".join(lines)


def render_postgresql_conf(spec: ComputeSpec, facts: Facts) -> str:
    """The whole postgresql.conf. The platform's settings come last, so that they win over the user's.

    Raises ValueError if `spec.settings` holds what `check_settings` refuses.
    """
    if problems := check_settings(spec.settings):
        raise ValueError(" ".join(problems))
    return (
        "# Written by Lamplighter at each start; changes are lost.\n"
        + render_settings(_defaults(spec, facts).items())
        + "\n# The user's.\n"
        + render_settings((name, spec.settings[name]) for name in sorted(spec.settings))
        + "\n# The platform's.\n"
        + render_settings(_fixed(spec, facts).items())
    )


def _defaults(spec: ComputeSpec, facts: Facts) -> dict[str, str]:
    """What a user may override."""
    size = size_of(spec.cu)
    settings = {
        "effective_cache_size": f"{size.effective_cache_size}MB",
        "work_mem": f"{size.work_mem}MB",
        "maintenance_work_mem": f"{size.maintenance_work_mem}MB",
        "max_wal_size": f"{size.max_wal_size}MB",
        "min_wal_size": "80MB",
        "max_parallel_workers": str(size.parallel_workers),
        "jit": "off",
        "random_page_cost": "1.1",
        "datestyle": "iso, mdy",
        "timezone": "GMT",
        "default_text_search_config": "pg_catalog.english",
        # A client that vanished without a word must not keep a compute awake for two hours.
        "tcp_keepalives_idle": "60",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "6",
        "log_checkpoints": "off",
        "hot_standby_feedback": "on" if spec.standby else "off",
    }
    if spec.standby:
        # A slot that the primary still writes is worth asking for again at once; the default is 5 s.
        settings["wal_retrieve_retry_interval"] = "500ms"
    if facts.major >= 16:
        # As Neon: whoever creates a role may act as it.
        settings["createrole_self_grant"] = "set, inherit"
    return settings


def _fixed(spec: ComputeSpec, facts: Facts) -> dict[str, str]:
    return (
        _identity(spec, facts) | _durability(spec, facts) | _limits(spec, facts) | _tls(facts) | _standby(spec, facts)
    )


def _identity(spec: ComputeSpec, facts: Facts) -> dict[str, str]:
    settings = {
        "cluster_name": "".join(char if 32 < ord(char) < 127 else "?" for char in spec.id)[:63],
        "listen_addresses": spec.listen if spec.port else "",
        "port": str(spec.port or SOCKET_PORT),
        "unix_socket_directories": _list_item(str(facts.socket_dir)),
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        # Preloaded although it costs 8 ms of a start: without that the view of an extension that Neon's users
        # expect to find stays empty for ever. What no user reaches by TCP goes without.
        "shared_preload_libraries": ", ".join(facts.preload) if spec.port else "",
        "local_preload_libraries": "",
        "session_preload_libraries": "",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_timezone": "GMT",
        # The supervisor reads what the log says.
        "lc_messages": "C",
        "log_statement": "none",
        # A statement that fails may hold a password.
        "log_min_error_statement": "panic",
    }
    if facts.major >= 17:
        settings["allow_alter_system"] = "off"
    return settings


def _durability(spec: ComputeSpec, facts: Facts) -> dict[str, str]:
    settings = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        # After a crash 115 ms instead of 253: one sync of the file system instead of one for each file.
        "recovery_init_sync_method": "syncfs",
        "wal_level": "logical" if spec.logical_replication else "replica",
        "archive_mode": "off",
        "max_wal_senders": str(max(WAL_SENDERS, facts.floors.max_wal_senders)),
        "max_replication_slots": str(SLOTS),
        # A forgotten slot must not fill the disk.
        "max_slot_wal_keep_size": "1GB",
        "hot_standby": "on",
    }
    if facts.copy_on_write:
        # Recycled or zeroed segments are new blocks there all the same.
        settings |= {"wal_recycle": "off", "wal_init_zero": "off"}
    return settings


def _limits(spec: ComputeSpec, facts: Facts) -> dict[str, str]:
    size = size_of(spec.cu)
    floors = facts.floors
    settings = {
        "max_connections": str(max(size.max_connections, floors.max_connections)),
        "shared_buffers": f"{size.shared_buffers}MB",
        "superuser_reserved_connections": "5",
        "max_worker_processes": str(max(WORKERS, floors.max_worker_processes)),
        "max_prepared_transactions": str(max(PREPARED, floors.max_prepared_transactions)),
        "max_locks_per_transaction": str(max(LOCKS, floors.max_locks_per_transaction)),
        "huge_pages": "off",
        # /dev/shm of a container holds no more than some sixty computes.
        "dynamic_shared_memory_type": "mmap",
    }
    if facts.major >= 18:
        # Three processes less for each idle compute.
        settings["io_method"] = "sync"
    return settings


def _tls(facts: Facts) -> dict[str, str]:
    if facts.tls is None:
        return {}
    return {
        "ssl": "on",
        "ssl_cert_file": str(facts.tls.certificate),
        "ssl_key_file": str(facts.tls.key),
        "ssl_min_protocol_version": "TLSv1.2",
    }


def _standby(spec: ComputeSpec, facts: Facts) -> dict[str, str]:
    if spec.standby is None or facts.primary_socket_dir is None:
        return {}
    conninfo = {
        "host": str(facts.primary_socket_dir),
        "port": str(SOCKET_PORT),
        "user": SUPERUSER,
        "application_name": spec.standby.slot,
        "sslmode": "disable",
        "gssencmode": "disable",
    }
    return {
        "primary_conninfo": " ".join(f"{key}={quote_conninfo(value)}" for key, value in conninfo.items()),
        "primary_slot_name": spec.standby.slot,
        "recovery_target_timeline": "latest",
    }


def _list_item(value: str) -> str:
    """One item of a comma separated list: double quotes keep commas and blanks in it."""
    return '"' + value.replace('"', '""') + '"'


def render_hba(*, tls: bool) -> str:
    """Who gets in. The first line that fits decides, and what fits none is refused.

    On the Unix socket: the platform's superuser and its copier, and only for the operating system users of the ident
    map; and everybody else with a password, as the pooler does, where nobody but those users reaches the socket at
    all. By TCP: everybody but the platform's two with a password, which SCRAM never sends; by TLS where the build has
    it, which is asked of other hosts alone. The gateway is on this host, whoever it speaks for: clients that came to it
    by a network, as Postgres cannot know, may do without too unless the gateway refuses them.

    The keyword `replication` is for physical replication without a database alone. A role that has the attribute
    REPLICATION gets in with `replication=database` by the last lines, as logical replication does, and may then take a
    base backup or make a physical slot too: no line here can tell them apart, only the attribute can be withheld.
    """
    encrypted = "hostssl all          all          all  scram-sha-256\n" if tls else ""
    # Not the loopback address alone: a redirected client of this host has the address that it called.
    plain = "samehost" if tls else "all"
    return (
        f"local  all          {SUPERUSER}  peer map=platform\n"
        f"local  replication  {SUPERUSER}  peer map=platform\n"
        f"local  all          {COPIER}  peer map=platform\n"
        "local  replication  all          reject\n"
        "local  template1    all          reject\n"
        "local  all          all          scram-sha-256\n"
        f"host   all          {SUPERUSER},{COPIER}  all  reject\n"
        "host   replication  all          all  reject\n"
        # One session in it makes every CREATE DATABASE fail.
        "host   template1    all          all  reject\n"
        f"{encrypted}host   all          all          {plain}  scram-sha-256\n"
    )


def render_ident(os_users: Iterable[str]) -> str:
    """Which operating system users may be the platform's superuser, or copier."""
    lines = []
    for user in sorted(set(os_users)):
        if not user or any(char in user for char in '"\n\r\0'):
            raise ValueError(user)
        lines += [f'platform  "{user}"  {role}\n' for role in (SUPERUSER, COPIER)]
    return "".join(lines)
