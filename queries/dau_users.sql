-- question: how many users were active on each day?
-- grain: month and dimensions; one count per day of the month
-- inputs: links, activity
-- owner: ameles-queries
-- A user is active on a day when seen on a device that day; attributes are the
-- device's in that month. A user of two devices counts once in each group.

-- statement: value
SELECT {d}month, sum_bits(days) AS users
FROM (
  SELECT {dims}a.month AS month, l."user", bit_or(l.days) AS days
  FROM links l
  JOIN activity a ON a.device = l.device AND a.month = l.month
  WHERE a.month BETWEEN {from} AND {to}{filter}
  GROUP BY {by}a.month, l."user"
)
GROUP BY {d}month

-- statement: people
SELECT {dims}a.month, people(l.days, l."user", {k}) AS users, people(l.days, l.device, {k}) AS devices
FROM links l
JOIN activity a ON a.device = l.device AND a.month = l.month
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
