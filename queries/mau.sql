-- question: how many devices were active in each calendar month?
-- grain: month and dimensions
-- inputs: activity, links
-- owner: ameles-queries

-- statement: value
SELECT {dims}a.month, count(*) AS devices
FROM activity a
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month

-- statement: people
SELECT {dims}a.month,
  people(CAST(1 AS BIGINT UNSIGNED), a.device, {k}) AS devices
  , people(CAST(1 AS BIGINT UNSIGNED), l."user", {k}) AS users -- if user
FROM activity a
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
