import duckdb

duckdb.sql("select i % 3 as k, sum(i) as s from range(10) t(i) group by k order by k").fetchall()
