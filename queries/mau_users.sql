-- question: how many users were active in each calendar month?
-- grain: month and dimensions
-- inputs: links, activity
-- owner: ameles-queries
-- Attributes are those of the devices that a user was seen on; a user of two
-- devices counts once in each group.

-- statement: value
SELECT {d}month, count(*) AS users
FROM (
  SELECT {dims}a.month AS month, l."user"
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = l.month
  WHERE a.month BETWEEN {from} AND {to}{filter}
  GROUP BY {by}a.month, l."user"
)
GROUP BY {d}month

-- statement: people
SELECT {dims}a.month,
  people(CAST(1 AS BIGINT UNSIGNED), l."user", {k}) AS users,
  people(CAST(1 AS BIGINT UNSIGNED), l.device, {k}) AS devices
FROM links l
JOIN activity a ON a.device = l.device AND a.month = l.month
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
