#!/usr/bin/env python3
"""The questions of `cargo bench --bench stats -- EVENTS --sql`, put to DuckDB.

    HITLOG_STATS_DIR=target/stats cargo bench --bench stats -- 10000000 --sql
    python3 -m venv target/venv && target/venv/bin/pip install duckdb
    target/venv/bin/python benches/stats/beside_duckdb.py target/stats.db

Copies the events of that bench's table into a file of DuckDB's own, target/stats.duckdb, unless it is there already.
Asks what the bench has asked, in the same words, on two threads, each question with the file opened anew, and ends with
an error if an answer is not the one that the bench was given.
"""

import csv
import json
import os
import sqlite3
import sys
import tempfile
import time

import duckdb

THREADS = 2
# Askings of a question once it was asked, and the seconds after which there are no more.
AGAIN = 100
AGAIN_SECONDS = 60
# Events that are copied at a time.
CHUNK = 1_000_000


def main():
    if len(sys.argv) != 2:
        sys.exit(f"Usage: {sys.argv[0]} TABLE.db, which `cargo bench --bench stats -- EVENTS --sql` has made.")
    table = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    path = os.path.splitext(sys.argv[1])[0] + ".duckdb"
    if not os.path.exists(path):
        copy(table, path)
    print(f"DuckDB {duckdb.__version__}, {THREADS} threads, {os.path.getsize(path) / 1e6:.0f} MB\n")
    print(f"{'':<28}{'first':>14}{'again p50':>14}{'again p99':>14}{'processor':>14}{'askings':>14}")
    for name, sql, answer in table.execute("SELECT name, sql, answer FROM Question ORDER BY rowid"):
        connection = connect(path)
        first, rows = timed(connection, sql)
        if rows != json.loads(answer):
            sys.exit(f"{name}: DuckDB answers {rows}, the table {answer}")
        times, begun, cpu_begun = [], time.monotonic(), time.process_time()
        while len(times) < AGAIN and time.monotonic() - begun < AGAIN_SECONDS:
            times.append(timed(connection, sql)[0])
        cpu = (time.process_time() - cpu_begun) * 1e3 / len(times)
        connection.close()
        times.sort()
        p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
        shown = "".join(f"{value:>11.1f} ms" for value in (first, p50, p99, cpu))
        print(f"{name:<28}{shown}{len(times):>14}", flush=True)


def connect(path):
    connection = duckdb.connect(path)
    connection.execute(f"SET threads = {THREADS}")
    return connection


def timed(connection, sql):
    begun = time.monotonic()
    rows = connection.execute(sql).fetchall()
    return (time.monotonic() - begun) * 1e3, [list(row) for row in rows]


def copy(table, path):
    """Copies the events into a new file, in their order, through files of CSV that are gone afterwards."""
    making = path + ".making"
    if os.path.exists(making):
        os.remove(making)
    connection = connect(making)
    columns = list(table.execute("SELECT name, type FROM pragma_table_info('Event')"))
    types = {"INTEGER": "BIGINT", "TEXT": "VARCHAR"}
    connection.execute(f"CREATE TABLE Event({', '.join(f'{name} {types[kind]}' for name, kind in columns)})")
    events = table.execute("SELECT * FROM Event ORDER BY id")
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path))) as folder:
        chunk = os.path.join(folder, "chunk.csv")
        quoted = chunk.replace("'", "''")
        while rows := events.fetchmany(CHUNK):
            with open(chunk, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
            connection.execute(f"COPY Event FROM '{quoted}' (HEADER false, DELIMITER ',', QUOTE '\"', ESCAPE '\"')")
    connection.execute("CHECKPOINT")
    connection.close()
    os.rename(making, path)


if __name__ == "__main__":
    main()
