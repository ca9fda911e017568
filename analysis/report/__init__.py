"""One self-contained, interactive HTML page of a study, or of two held against each other.

Python writes the text, the tables and one JSON document (payload); the scripts of static/ draw the
charts from it and compute what the reader asks for. No network, no build step.
"""

from analysis.report.study_page import html_page, write_report

__all__ = ["html_page", "write_report"]
