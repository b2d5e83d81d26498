-- question: what part of a month's devices is active on each day (dau / mau28)?
-- grain: month and dimensions; two counts per day, which the runner divides
-- inputs: activity, links
-- owner: ameles-queries
-- A device active on a day counts in that day's window under the same
-- attributes, so the first count is part of the second.

-- statement: value
SELECT {dims}a.month, sum_bits(a.days) AS dau, sum_bits(window_days(a.month, a.days, n.days, {window})) AS mau28
FROM activity a
LEFT JOIN activity n ON n.device = a.device AND n.month = next_month(a.month) AND n.month BETWEEN {from} AND next_month({to})
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month

-- statement: people
-- Behind the ratio stand those active that day, and the rest of the window.
SELECT {dims}a.month,
  people(a.days, a.device, {k}) AS devices
  , people(window_days(a.month, a.days, n.days, {window}) - CAST(a.days AS BIGINT UNSIGNED), a.device, {k}) AS rest
  , people(l.days, l."user", {k}) AS users -- if user
  , people(window_days(a.month, l.days, n.days, {window}) - CAST(l.days AS BIGINT UNSIGNED), l."user", {k}) AS rest_users -- if user
FROM activity a
LEFT JOIN activity n ON n.device = a.device AND n.month = next_month(a.month) AND n.month BETWEEN {from} AND next_month({to})
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
