-- question: how many devices were active on each day?
-- grain: month and dimensions; one count per day of the month
-- inputs: activity, links
-- owner: ameles-queries

-- statement: value
SELECT {dims}a.month, sum_bits(a.days) AS devices
FROM activity a
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month

-- statement: people
SELECT {dims}a.month,
  people(a.days, a.device, {k}) AS devices
  , people(l.days, l."user", {k}) AS users -- if user
FROM activity a
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
