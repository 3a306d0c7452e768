from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("devices", "0001_initial")]

    operations = [migrations.RenameField(model_name="presence", old_name="clean", new_name="clean_start")]
