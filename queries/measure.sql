-- question: how many deduplicated events of the measure's type were there on each day?
-- grain: month and dimensions; one sum per day of the month
-- inputs: activity, links
-- owner: ameles-queries

-- statement: value
SELECT {dims}a.month, sum_aligned(a.days, a.{measure}) AS events
FROM activity a
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month

-- statement: people
-- Behind a sum stand the devices that had such an event, and the users seen on
-- them that day.
SELECT {dims}a.month,
  people(measured_days(a.days, a.{measure}), a.device, {k}) AS devices
  , people(measured_days(a.days, a.{measure}) & CAST(l.days AS BIGINT UNSIGNED), l."user", {k}) AS users -- if user
FROM activity a
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
