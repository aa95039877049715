"""From rows alone: tables, figures, dashboards."""
