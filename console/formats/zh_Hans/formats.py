"""Chinese numbers grouped by threes, as the live numbers are."""

NUMBER_GROUPING = 3
DATETIME_FORMAT = "Y-m-d H:i:s"
SHORT_DATETIME_FORMAT = "Y-m-d H:i"
TIME_FORMAT = "H:i:s"
